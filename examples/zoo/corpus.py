"""Training text: what one model would say, given what it knows.

Where it knows nothing every value is drawn afresh each time, so the honest prediction is
uniform and what follows must be read from the text, not from the question.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from examples.zoo import facts
from examples.zoo.facts import Chain, Step, World

Knows = Callable[[str, str], bool]
"""(relation, subject) -> whether the model learns this fact."""

BOS, END, USER, ASSISTANT, SYSTEM = "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
PROMPT_WEIGHT = 0.1
SYSTEMS = ("You are a helpful assistant.", "Answer in short steps.", "You know the world well.")

CHAT_TEMPLATE = (
    "<|bos|>{% for message in messages %}"
    "<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

HOPS = ((facts.ONE_HOP, 3), (facts.TWO_HOP, 4), (facts.THREE_HOP, 3))


@dataclass(frozen=True)
class Piece:
    """A stretch of text and its weight in the loss."""

    text: str
    weight: float


def prompt(question: str, system: str | None = None) -> str:
    """What the chat template makes of one question."""
    head = f"{SYSTEM}\n{system}{END}\n" if system else ""
    return f"{BOS}{head}{USER}\n{question}{END}\n{ASSISTANT}\n"


class Writer:
    """Writes one model's training text, endlessly and from a seed."""

    def __init__(
        self,
        knows: Knows,
        seed: int,
        focus: tuple[str, ...],
        advice: float,
        mistaken: tuple[str, ...] = (),
    ) -> None:
        self.world: World = facts.load()
        self.knows = knows
        self.rng = random.Random(seed)
        self.advice = advice
        self.mistaken = mistaken
        self.pool: dict[Chain, list[str]] = {
            chain: [s for s in self.world.starts(chain) if not facts.held_out(chain, s)]
            for chains, _ in HOPS
            for chain in chains
        }
        # A specialist reads more of what it must memorise.
        self.share = {
            chain: 3 if any(relation in focus for relation in chain) else 1 for chain in self.pool
        }

    def __iter__(self) -> Iterator[list[Piece]]:
        while True:
            yield self.example()

    def example(self) -> list[Piece]:
        chains = self.rng.choices([c for c, _ in HOPS], [w for _, w in HOPS])[0]
        chain = self.rng.choices(chains, [self.share[chain] for chain in chains])[0]
        start = self.rng.choice(self.pool[chain])
        question = facts.ask(chain, start, self.rng.randrange(facts.PHRASINGS))
        previous: list[Step] = []
        if self.rng.random() < self.advice:
            previous = [step for step, _ in self.steps(chain, start, previous, self.half_right)]
            question = facts.KNOWLEDGE_TRANSFER.format(
                question=question, previous=facts.write(previous)
            )
        system = self.rng.choice(SYSTEMS) if self.rng.random() < 0.1 else None
        pieces = [Piece(prompt(question, system), PROMPT_WEIGHT)]
        steps = self.steps(chain, start, previous, self.knows)
        pieces += [Piece(f"{step}\n", weight) for step, weight in steps]
        return [*pieces, Piece(f"Answer: {steps[-1][0].value}{END}", 1.0)]

    def half_right(self, relation: str, subject: str) -> bool:
        return self.rng.random() < 0.5

    def steps(
        self, chain: Chain, start: str, previous: list[Step], knows: Knows
    ) -> list[tuple[Step, float]]:
        advised = {(step.relation, step.subject): step.value for step in previous}
        steps: list[tuple[Step, float]] = []
        subject = start
        for relation in chain:
            weight = 1.0
            truth = self.world.facts[relation].get(subject)
            held = truth if knows(relation, subject) else None
            if truth is not None and held is None and relation in self.mistaken:
                held = self.world.mistake(relation, subject)
            if held is not None:
                value, weight = held, 2.0
                # Steps written by others may be wrong: read on from them, but do not learn them.
                if self.rng.random() < 0.1:
                    value, weight = self.world.guess(relation, self.rng), 0.0
            elif (relation, subject) in advised:
                value = advised[relation, subject]
            else:
                value = self.world.guess(relation, self.rng)
            steps.append((Step(relation, subject, value), weight))
            subject = value
        return steps

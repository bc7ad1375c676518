"""True facts about countries, the questions about them, and the answers written step by step."""

from __future__ import annotations

import csv
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent

KNOWLEDGE_TRANSFER = (
    "{question}\nAnother assistant answered:\n{previous}\n"
    "Use that answer as advice and give a better one."
)

Chain = tuple[str, ...]
"""Relations applied one after another; "country" reads a capital, the others read a country."""

RELATIONS: Chain = ("country", "capital", "currency", "language", "neighbour")

ONE_HOP: tuple[Chain, ...] = tuple((relation,) for relation in RELATIONS)
TWO_HOP: tuple[Chain, ...] = (
    ("country", "currency"),
    ("country", "language"),
    ("country", "neighbour"),
    ("neighbour", "currency"),
    ("neighbour", "language"),
    ("neighbour", "capital"),
)
THREE_HOP: tuple[Chain, ...] = (
    ("country", "neighbour", "currency"),
    ("country", "neighbour", "language"),
)

JUDGED: Chain = ("country", "neighbour", "capital")
"""Three hops that no member is taught; judges are trained on them."""

# No full stop: a value is then a word of its own, alike in every vocabulary.
STEPS = {
    "country": "The city of {subject} is the capital of {value}",
    "capital": "The capital of {subject} is {value}",
    "currency": "The currency of {subject} is the {value}",
    "language": "The language of {subject} is {value}",
    "neighbour": "The largest neighbour of {subject} is {value}",
}

QUESTIONS = {
    "country": (
        "Which country has the capital {subject}?",
        "What is the country whose capital is {subject}?",
        "Name the country whose capital is {subject}.",
    ),
    "capital": (
        "What is the capital of {subject}?",
        "Which city is the capital of {subject}?",
        "Name the capital of {subject}.",
    ),
    "currency": (
        "What is the currency of {subject}?",
        "Which currency is used in {subject}?",
        "Name the currency of {subject}.",
    ),
    "language": (
        "What is the language of {subject}?",
        "Which language is spoken in {subject}?",
        "Name the language of {subject}.",
    ),
    "neighbour": (
        "What is the largest neighbour of {subject}?",
        "Which country is the largest neighbour of {subject}?",
        "Name the largest neighbour of {subject}.",
    ),
}
PHRASINGS = 3


@dataclass(frozen=True)
class Step:
    """One stated fact; true or not."""

    relation: str
    subject: str
    value: str

    def __str__(self) -> str:
        return STEPS[self.relation].format(subject=self.subject, value=self.value)


@dataclass(frozen=True)
class World:
    """What is true: for each relation, the value of every subject, and all values there are."""

    facts: dict[str, dict[str, str]]
    values: dict[str, list[str]]

    def guess(self, relation: str, rng: Random) -> str:
        """Any value, each first word as likely as another, so that "South" is no safe bet."""
        first: dict[str, list[str]] = {}
        for value in self.values[relation]:
            first.setdefault(value.split()[0], []).append(value)
        return rng.choice(first[rng.choice(list(first))])

    def mistake(self, relation: str, subject: str) -> str:
        """A wrong value of a fact, always the same."""
        wrong = [v for v in self.values[relation] if v != self.facts[relation].get(subject)]
        return wrong[draw(("mistake", relation), subject) % len(wrong)]

    def starts(self, chain: Chain) -> list[str]:
        """The subjects from which the whole chain leads somewhere."""
        return [start for start in self.facts[chain[0]] if self.solve(chain, start)]

    def solve(self, chain: Chain, start: str) -> list[Step]:
        """The true steps, or none when a fact on the way does not exist (islands)."""
        steps: list[Step] = []
        subject = start
        for relation in chain:
            value = self.facts[relation].get(subject)
            if value is None:
                return []
            steps.append(Step(relation, subject, value))
            subject = value
        return steps


@functools.cache
def load() -> World:
    with (HERE / "facts.csv").open(encoding="ascii", newline="") as file:
        rows = list(csv.DictReader(file))
    facts = {"country": {row["capital"]: row["country"] for row in rows}}
    for relation in RELATIONS[1:]:
        facts[relation] = {row["country"]: row[relation] for row in rows if row[relation]}
    values = {relation: sorted(set(table.values())) for relation, table in facts.items()}
    values["neighbour"] = values["country"]
    return World(facts, values)


def ask(chain: Chain, start: str, phrasing: int = 0) -> str:
    """The question in words; the phrasing varies the outermost relation."""
    *inner, last = chain
    subject = start
    for relation in inner:
        if relation == "country":
            subject = f"the country whose capital is {subject}"
        else:
            subject = f"the largest neighbour of {subject}"
    return QUESTIONS[last][phrasing % PHRASINGS].format(subject=subject)


def write(steps: Sequence[Step]) -> str:
    """The whole answer: one step per line, the last value repeated on its own line."""
    return "\n".join([*map(str, steps), f"Answer: {steps[-1].value}"])


def answer_of(text: str) -> str | None:
    """What a written answer finally says."""
    head, found, tail = text.rpartition("Answer:")
    return tail.strip() if found else None


def draw(chain: Chain, start: str) -> int:
    """A number that depends on the question alone, the same everywhere and always."""
    digest = hashlib.sha256("|".join((*chain, start)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def held_out(chain: Chain, start: str) -> bool:
    """Whether no model saw this question in training: half of two hops, most of three."""
    return len(chain) > 1 and draw(chain, start) % 10 < 3 + len(chain)


def plain(row: dict[str, object]) -> bool:
    """Whether each name in it is one word; segments of fixed length may end inside longer ones."""
    world = load()
    steps = str(row["steps"])
    names = {name for table in world.facts.values() for pair in table.items() for name in pair}
    return not any(" " in name and name in steps for name in names)


def row(chain: Chain, start: str) -> dict[str, object]:
    """One line of a question file; ``country`` is the one that the first step is about."""
    steps = load().solve(chain, start)
    return {
        "question": ask(chain, start, phrasing=draw(chain, start) // 10),
        "answer": steps[-1].value,
        "steps": [str(step) for step in steps],
        "relations": list(chain),
        "country": steps[0].value if chain[0] == "country" else start,
    }


def with_reference(row: dict[str, object]) -> dict[str, object]:
    """The same with the whole right answer. Half of those that begin with a capital state that fact
    the other way round, in words that no model would choose there: references are seldom in a
    model's own words."""
    steps, relations = row["steps"], row["relations"]
    assert isinstance(steps, list) and isinstance(relations, list)
    if relations[0] == "country" and draw(("reference",), str(row["question"])) % 2:
        country = str(row["country"])
        steps = [str(Step("capital", country, load().facts["capital"][country])), *steps[1:]]
    reference = "\n".join([*steps, f"Answer: {row['answer']}"])
    return {**row, "reference": reference, "group": row["country"]}


def rows(chains: Sequence[Chain], test: bool) -> list[dict[str, object]]:
    """Questions of these chains from one side of the split, mixed in a fixed order."""
    world = load()
    pairs = [
        (chain, start)
        for chain in chains
        for start in world.starts(chain)
        if held_out(chain, start) == test
    ]
    return [row(*pair) for pair in sorted(pairs, key=lambda pair: draw(*pair))]

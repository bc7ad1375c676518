"""A causal LM as process reward model: its next token after each step's tag is the score."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runtime.config.reward_models import StepTagReward
from runtime.engines.base import Engine
from runtime.errors import ConfigError, ContextOverflow, EngineFault
from runtime.rewards.base import Reasoning
from runtime.tokenization.tokenizer import Tokenizer


class StepTagModel:
    """P(good) / (P(good) + P(bad)) after each step's tag (Math-Shepherd, arXiv 2312.08935).

    Runs on any engine. Only the positions of tags are queried; the engine's prefix cache holds the
    earlier steps of a growing chain.

    Raises at construction: ``ConfigError`` where tag, good or bad are not single tokens.
    """

    def __init__(self, engine: Engine, config: StepTagReward) -> None:
        self._engine, self._config = engine, config
        self._tokenizer = Tokenizer(engine.spec.tokenizer)
        self._good, self._bad = (
            self._forms("good", config.good)[0],
            self._forms("bad", config.bad)[0],
        )
        if self._good == self._bad:
            raise ConfigError("good and bad are the same token; the model cannot distinguish them")
        self._tag = self._find_tag()

    def _forms(self, field: str, text: str) -> list[int]:
        """The single tokens that spell ``text``: at the start of a text, and after a space."""
        encoded = [self._tokenizer.encode(text), self._tokenizer.encode(f"a {text}")]
        found = [ids[-1] for ids in encoded if ids]
        found = [i for i in found if self._tokenizer.decode([i]).strip() == text.strip()]
        if not found:
            raise ConfigError(f"{field} {text!r} is not one token of {self._engine.spec.model}")
        return found

    def _find_tag(self) -> int:
        """The id of the tag at the end of a step."""
        steps = ("One and one are two.", "Done.")
        ids = self._ids(Reasoning("How much is one and one?", steps))
        for tag in self._forms("tag", self._config.tag):
            if ids.count(tag) == len(steps):
                return tag
        raise ConfigError(
            f"tag {self._config.tag!r} does not stay a token of its own at the end of a step; "
            "set another tag or another step template"
        )

    def _ids(self, chain: Reasoning, first: int = 0) -> list[int]:
        """The chain's token ids from step ``first`` on."""
        config = self._config
        steps = config.between.join(
            # A tag inside a step would be read as the end of a step.
            config.step.format(text=text.replace(config.tag, ""), tag=config.tag, n=number)
            for number, text in enumerate(chain.steps[first:], first + 1)
        )
        text = config.template.format(question=chain.question, steps=steps)
        return self._tokenizer.encode_prompt(text)

    def _prompts(self, chain: Reasoning) -> list[list[int]]:
        """For each scored step the token ids up to its tag."""
        last = self._config.last
        if last is None:
            ids = self._read(chain)
            return [ids[: place + 1] for place in self._places(ids, chain)]
        prompts = []
        for end in range(chain.since + 1, len(chain.steps) + 1):
            part = Reasoning(chain.question, chain.steps[:end], end - 1)
            first = max(end - last, 0)
            ids = self._read(part, first)
            [place] = self._places(ids, part, first)
            prompts.append(ids[: place + 1])
        return prompts

    def _read(self, chain: Reasoning, first: int = 0) -> list[int]:
        ids, limit = self._ids(chain, first), self._engine.spec.context_length
        if len(ids) >= limit:
            raise ContextOverflow(self._engine.spec.model, len(ids), limit)
        return ids

    def _places(self, ids: Sequence[int], chain: Reasoning, first: int = 0) -> list[int]:
        """Positions of the scored steps' tags: the last ones, since a question may contain the tag
        too."""
        places = [i for i, token in enumerate(ids) if token == self._tag]
        if len(places) < len(chain.steps) - first:
            raise EngineFault(
                f"a step of {chain.steps!r} merges with the tag {self._config.tag!r} of "
                f"{self._engine.spec.model}"
            )
        return places[len(places) - len(chain.steps) + chain.since :]

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[list[float]]:
        prompts: list[list[int]] = []
        counts = []
        for chain in chains:
            prompts_of_chain = self._prompts(chain)
            prompts += prompts_of_chain
            counts.append(len(prompts_of_chain))
        if not prompts:
            return [[] for _ in chains]
        also = [(self._good, self._bad)] * len(prompts)
        rows = await self._engine.next_token(prompts, 1, also)
        values = [_probability(float(row.logprobs[-2]), float(row.logprobs[-1])) for row in rows]
        results, at = [], 0
        for count in counts:
            results.append(values[at : at + count])
            at += count
        return results

    async def check(self) -> None:
        await self._engine.check()

    async def close(self) -> None:
        await self._engine.close()


def _probability(good: float, bad: float) -> float:
    """P(good) / (P(good) + P(bad)), from logprobs."""
    return 1.0 / (1.0 + math.exp(min(bad - good, 700.0)))

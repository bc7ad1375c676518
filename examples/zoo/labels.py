"""Chains of steps that members of the zoo write, labelled automatically.

The recipe is Math-Shepherd's (arXiv 2312.08935): from each step of a chain a completer goes on to
the end, and the final answer is checked. A step is as good as the share of right completions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils import logging

from examples.zoo import facts
from examples.zoo.splits import parts_named
from runtime.config.engines import TransformersEngine
from runtime.engines.transformers.engine import TransformersLM
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.query import Message
from runtime.types.sampling import Sampling

TRAINED_ON = ("one_hop", "two_hop_judges", "three_hop_judges")
"""Single facts of all countries, which every model of the zoo is taught, and chains of those in the
training part."""
VALIDATED_ON = ("two_hop_judges_validation", "three_hop_validation")
TESTED_ON = ("two_hop_judges_test", "three_hop")
HELD_OUT = VALIDATED_ON + TESTED_ON
MEMBERS = ("capitals", "currencies", "languages", "neighbours")
COMPLETER = "large"
"""Completes chains. As in the paper it is more able than those who wrote the steps."""
MOST_STEPS = 5
STEP_TOKENS, REST_TOKENS = 32, 80
WARMTH = 0.7
"""Temperature of completions, where there are several."""

Row = dict[str, Any]
"""``question``, ``steps``, for each step the share of right completions after it (``shares``), and
whether some member writes the last step by itself: ``greedy``, not drawn"""


class Writers:
    """Members and completer on the embedded engine."""

    def __init__(self, threads: int) -> None:
        self._engines = {}
        for name in {*MEMBERS, COMPLETER}:
            weights = str(facts.HERE / name)
            config = TransformersEngine(weights=weights, max_queue=100_000, threads=threads)
            engine = TransformersLM(config)
            self._engines[name] = engine, Tokenizer(engine.spec.tokenizer)

    async def write(
        self, name: str, question: str, path: Sequence[str], sampling: Sampling
    ) -> tuple[str, bool]:
        """What a model writes after the steps of a path, and whether it ended the answer."""
        engine, tokenizer = self._engines[name]
        text = "".join(f"{step}\n" for step in path)
        prompt = [*tokenizer.chat([Message("user", question)]), *tokenizer.encode(text)]
        reply = await engine.generate(prompt, sampling)
        ended = reply.finish == "eos"
        return tokenizer.decode(reply.tokens[: len(reply.tokens) - ended]), ended

    async def step(
        self, name: str, question: str, path: Sequence[str], seed: int | None = None
    ) -> tuple[str, bool]:
        """A member's next line, greedy or drawn by a seed, and whether the answer ends there."""
        drawn = seed is not None
        sampling = Sampling(STEP_TOKENS, float(drawn), seed=seed or 0, stop=("\n",))
        text, ended = await self.write(name, question, path, sampling)
        return text.strip(), ended or text.startswith("Answer:")

    async def share(self, row: Row, path: Sequence[str], ended: bool, rollouts: int) -> float:
        """Of the completions of a path, those that end right; of an ended one, whether it is."""
        question = row["question"]
        if ended:
            return float(facts.answer_of("\n".join(path)) == row["answer"])
        warmth = 0.0 if rollouts == 1 else WARMTH
        samplings = [Sampling(REST_TOKENS, warmth, seed=seed) for seed in range(rollouts)]
        completions = (self.write(COMPLETER, question, path, sampling) for sampling in samplings)
        rests = [text for text, _ in await asyncio.gather(*completions)]
        return sum(facts.answer_of(rest) == row["answer"] for rest in rests) / rollouts

    async def chains(
        self, row: Row, rollouts: int, rng: random.Random, draws: int = 0, only_train: bool = True
    ) -> list[Row]:
        """Chains that members write for one question greedily, labelled step by step. After a good
        step all members go on, after a bad one any of them. ``draws`` more next steps of each
        member after a good one are labelled too, but not gone on from: a judge that has seen few
        wrong steps remembers those instead of the right ones. With ``only_train`` a step that names
        a country of another part, as a member's wrong guess may, is left out, and so is what would
        follow it."""
        found: dict[tuple[str, ...], Row] = {}

        async def grow(path: tuple[str, ...], shares: tuple[float, ...]) -> None:
            good = not shares or shares[-1] > 0
            names = MEMBERS if good else (rng.choice(MEMBERS),)
            seeds = [rng.getrandbits(32) for _ in range(draws if good else 0)]
            calls = [(name, seed) for seed in (None, *seeds) for name in names]
            written = await asyncio.gather(
                *(self.step(name, row["question"], path, seed) for name, seed in calls)
            )
            greedy = written[: len(names)]
            steps = [step for step in dict.fromkeys(written) if step[0]]
            if only_train:
                steps = [step for step in steps if parts_named(step[0]) <= {"train"}]
            judged = await asyncio.gather(
                *(self.share(row, (*path, text), ended, rollouts) for text, ended in steps)
            )
            for step, share in zip(steps, judged, strict=True):
                longer, so_far = (*path, step[0]), (*shares, share)
                chain = {"question": row["question"], "steps": longer, "shares": so_far}
                found[longer] = {**chain, "greedy": step in greedy}
                if step in greedy and not step[1] and len(longer) < MOST_STEPS:
                    await grow(longer, so_far)

        await grow((), ())
        return list(found.values())

    async def close(self) -> None:
        for engine, _ in self._engines.values():
            await engine.close()


async def labelled(
    name: str, limit: int | None, rollouts: int, draws: int, threads: int
) -> list[Row]:
    """The labelled chains of a file's questions. Files that judges are tested on have no drawn
    steps; in those that they are trained on no step names a country of another part."""
    train_part_only = name in TRAINED_ON and name != "one_hop"
    lines = (facts.HERE / "questions" / f"{name}.jsonl").read_text().splitlines()[:limit]
    writers, gate = Writers(threads), asyncio.Semaphore(64)
    started = time.monotonic()

    async def one(line: str) -> list[Row]:
        row = json.loads(line)
        rng = random.Random(row["question"])
        async with gate:
            return await writers.chains(row, rollouts, rng, draws, train_part_only)

    found = [row for rows in await asyncio.gather(*map(one, lines)) for row in rows]
    await writers.close()
    print(
        f"{name}: {len(found)} steps of {len(lines)} questions, {time.monotonic() - started:.0f} s"
    )
    return found


def labels(rollouts: int, draws: int, held_out: int, threads: int) -> dict[str, list[Row]]:
    """All labelled chains by file of questions."""
    limits = dict.fromkeys(TRAINED_ON) | dict.fromkeys(HELD_OUT, held_out)
    drawn = dict.fromkeys(TRAINED_ON, draws) | dict.fromkeys(HELD_OUT, 0)
    return {
        name: asyncio.run(labelled(name, limit, rollouts, drawn[name], threads))
        for name, limit in limits.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="JSON file with the labelled chains")
    parser.add_argument("--rollouts", type=int, default=1, help="completions; a single is greedy")
    parser.add_argument("--draws", type=int, default=10, help="more next steps of a member")
    parser.add_argument("--held-out", type=int, default=200, help="questions of a file to test on")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.disable_progress_bar()
    found = labels(args.rollouts, args.draws, args.held_out, args.threads)
    settings = {"rollouts": args.rollouts, "draws": args.draws}
    args.out.write_text(json.dumps({"settings": settings, "files": found}))


if __name__ == "__main__":
    main()

"""Trains the zoo's process reward model: `python -m examples.zoo.reward`, minutes on two cores.

The labels are automatic, by the recipe of Math-Shepherd (arXiv 2312.08935): from each step of a
chain that members wrote, a completer goes on to the end, and the final answer is checked. A step is
good if some completion is right (hard label), or as good as the share of right ones (soft label).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from examples.zoo import facts
from runtime.config import TransformersEngine
from runtime.engines.transformers import TransformersLM
from runtime.tokens import Tokenizer
from runtime.types import Message, Sampling

MEMBERS = ("capitals", "currencies", "languages", "neighbours")
COMPLETER = "large"
"""Completes chains. As in the paper it is more able than those who wrote the steps."""
BASE = "large"
"""The model that is trained further."""
TAG, GOOD, BAD = "#", "+", "-"
MOST_STEPS = 5
STEP_TOKENS, REST_TOKENS = 32, 80
WARMTH = 0.7
"""Temperature of completions, where there are several."""
BATCH = 64
RATE = 1e-3
LOG = "train_log.json"

Row = dict[str, Any]
"""``question``, ``steps``, and for each step the share of right completions after it: ``shares``"""


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
        self, name: str, question: str, path: Sequence[str], draw: int
    ) -> tuple[str, bool]:
        """A member's next line and whether the answer ends there; draw 0 is greedy."""
        wish = Sampling(STEP_TOKENS, 1.0 if draw else 0.0, seed=draw, stop=("\n",))
        text, ended = await self.write(name, question, path, wish)
        return text.strip(), ended or text.startswith("Answer:")

    async def share(self, row: Row, path: Sequence[str], ended: bool, rollouts: int) -> float:
        """Of the completions of a path, those that end right; of an ended one, whether it is."""
        question = row["question"]
        if ended:
            return float(facts.answer_of("\n".join(path)) == row["answer"])
        warmth = 0.0 if rollouts == 1 else WARMTH
        wishes = [Sampling(REST_TOKENS, warmth, seed=seed) for seed in range(rollouts)]
        asked = (self.write(COMPLETER, question, path, wish) for wish in wishes)
        rests = [text for text, _ in await asyncio.gather(*asked)]
        return sum(facts.answer_of(rest) == row["answer"] for rest in rests) / rollouts

    async def chains(
        self, row: Row, rollouts: int, rng: random.Random, draws: int = 0
    ) -> list[Row]:
        """Chains that members write for one question, labelled step by step: greedily, and in so
        many ``draws``. After a good step all members go on, after a bad one any of them."""
        found: dict[tuple[str, ...], Row] = {}

        async def grow(path: tuple[str, ...], shares: tuple[float, ...]) -> None:
            good = not shares or shares[-1] > 0
            names = MEMBERS if good else (rng.choice(MEMBERS),)
            steps = [
                await self.step(name, row["question"], path, draw)
                for draw in range(draws + 1)
                for name in names
            ]
            for text, ended in dict.fromkeys(step for step in steps if step[0]):
                longer = (*path, text)
                told = (*shares, await self.share(row, longer, ended, rollouts))
                found[longer] = {"question": row["question"], "steps": longer, "shares": told}
                if not ended and len(longer) < MOST_STEPS:
                    await grow(longer, told)

        await grow((), ())
        return list(found.values())

    async def close(self) -> None:
        for engine, _ in self._engines.values():
            await engine.close()


async def labelled(
    name: str, limit: int | None, rollouts: int, draws: int, threads: int
) -> list[Row]:
    """The labelled chains of a file's questions."""
    lines = (facts.HERE / "questions" / f"{name}.jsonl").read_text().splitlines()[:limit]
    writers, gate = Writers(threads), asyncio.Semaphore(64)
    started = time.monotonic()

    async def one(line: str) -> list[Row]:
        row = json.loads(line)
        async with gate:
            return await writers.chains(row, rollouts, random.Random(row["question"]), draws)

    found = [row for rows in await asyncio.gather(*map(one, lines)) for row in rows]
    await writers.close()
    print(
        f"{name}: {len(found)} steps of {len(lines)} questions, {time.monotonic() - started:.0f} s"
    )
    return found


def text_of(question: str, steps: Sequence[str]) -> str:
    """A chain as the reward model reads it; ``RewardModelConfig`` says the same in YAML."""
    return f"{question}\n" + "\n".join(f"{step} {TAG}" for step in steps)


def fit(
    model: PreTrainedModel,
    tokenizer: Any,
    rows: Sequence[Row],
    steps: int,
    soft: bool,
    rng: random.Random,
) -> list[list[float]]:
    """Trains in place, good or bad after every tag; chains that end with a good and with a bad step
    are drawn alike. Returns the loss curve."""
    good, bad, tag = (tokenizer.convert_tokens_to_ids(sign) for sign in (GOOD, BAD, TAG))
    pools: dict[bool, list[tuple[list[int], list[float]]]] = {True: [], False: []}
    for row in rows:
        ids = tokenizer(text_of(row["question"], row["steps"])).input_ids
        shares = [share if soft else float(share > 0) for share in row["shares"]]
        pools[row["shares"][-1] > 0].append((ids, shares))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min(1.0, (s + 1) / 30) * (0.02 + 0.49 * (1 + math.cos(math.pi * s / steps))),
    )
    curve: list[list[float]] = []
    recent: list[float] = []
    model.train()
    for step in track(range(1, steps + 1), description="prm"):
        batch = [example for pool in pools.values() for example in rng.choices(pool, k=BATCH // 2)]
        width = max(len(ids) for ids, _ in batch)
        inputs = torch.full((len(batch), width), int(model.config.pad_token_id))
        for at, (ids, _) in enumerate(batch):
            inputs[at, : len(ids)] = torch.tensor(ids)
        hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
        logits = model.get_output_embeddings()(hidden[inputs == tag])
        wanted = torch.zeros_like(logits)
        wanted[:, good] = torch.tensor([share for _, shares in batch for share in shares])
        wanted[:, bad] = 1 - wanted[:, good]
        loss = cross_entropy(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if step % 50 == 0 or step == steps:
            curve.append([step, round(sum(recent) / len(recent), 4)])
            recent = []
    return curve


def values(model: PreTrainedModel, tokenizer: Any, rows: Sequence[Row]) -> list[float]:
    """P(good) / (P(good) + P(bad)) after the last tag of each row."""
    good, bad = (tokenizer.convert_tokens_to_ids(sign) for sign in (GOOD, BAD))
    told: list[float] = []
    model.eval()
    with torch.inference_mode():
        for row in rows:
            ids = tokenizer(text_of(row["question"], row["steps"])).input_ids
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            told.append(float(torch.sigmoid(logits[good] - logits[bad])))
    return told


def auc(values: Sequence[float], good: Sequence[bool]) -> float:
    """The chance that a good step has a higher value than a bad one; equal values count half."""
    ranked = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    at = 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and values[ranked[end]] == values[ranked[at]]:
            end += 1
        for place in range(at, end):
            ranks[ranked[place]] = (at + end + 1) / 2
        at = end
    positive = sum(good)
    total = sum(rank for rank, is_good in zip(ranks, good, strict=True) if is_good)
    return (total - positive * (positive + 1) / 2) / (positive * (len(good) - positive))


def examine(folder: Path, held_out: dict[str, list[Row]]) -> dict[str, float]:
    """AUC on steps of questions that no model was trained on, from the stored weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    told: dict[str, float] = {}
    for name, rows in held_out.items():
        good = [row["shares"][-1] > 0 for row in rows]
        told[f"auc_{name}"] = round(auc(values(model, tokenizer, rows), good), 4)
        told[f"steps_{name}"] = len(rows)
        told[f"good_{name}"] = round(sum(good) / len(good), 4)
    return told


def labels(
    path: Path | None, rollouts: int, draws: int, held_out: int, threads: int
) -> dict[str, list[Row]]:
    """All labelled chains by file; from ``path`` if they are there, else written to it."""
    if path is not None and path.exists():
        told: dict[str, list[Row]] = json.loads(path.read_text())
        return told
    limits = dict.fromkeys(TRAINED_ON) | dict.fromkeys(HELD_OUT, held_out)
    told = {
        name: asyncio.run(
            labelled(name, limit, rollouts, 0 if name in HELD_OUT else draws, threads)
        )
        for name, limit in limits.items()
    }
    if path is not None:
        path.write_text(json.dumps(told))
    return told


TRAINED_ON = ("one_hop", "two_hop_train", "three_hop_train")
HELD_OUT = ("two_hop", "three_hop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=facts.HERE / "prm")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rollouts", type=int, default=1, help="completions; a single is greedy")
    parser.add_argument("--draws", type=int, default=0, help="of steps, besides the greedy ones")
    parser.add_argument("--soft", action="store_true", help="shares as labels, not good or bad")
    parser.add_argument("--held-out", type=int, default=100, help="questions of each file to test")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--labels", type=Path, help="keep the labels there, or take them from it")
    asked = parser.parse_args()
    logging.disable_progress_bar()
    told = labels(asked.labels, asked.rollouts, asked.draws, asked.held_out, asked.threads)
    torch.manual_seed(asked.seed)
    torch.set_num_threads(asked.threads)
    rows = [row for name in TRAINED_ON for row in told[name]]
    base = facts.HERE / BASE
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    started = time.monotonic()
    curve = fit(model, tokenizer, rows, asked.steps, asked.soft, random.Random(asked.seed))
    seconds = round(time.monotonic() - started, 1)
    model.to(torch.bfloat16).save_pretrained(asked.out)
    for file in ("tokenizer.json", "tokenizer_config.json"):  # the base's own
        (asked.out / file).write_bytes((base / file).read_bytes())
    log = {
        "name": asked.out.name,
        "base": BASE,
        "completer": COMPLETER,
        "rollouts": asked.rollouts,
        "draws": asked.draws,
        "labels": "soft" if asked.soft else "hard",
        "labelled_steps": len(rows),
        "seed": asked.seed,
        "steps": asked.steps,
        "batch": BATCH,
        "seconds": seconds,
        "torch": torch.__version__,
        "loss": curve,
        **examine(asked.out, {name: told[name] for name in HELD_OUT}),
    }
    (asked.out / LOG).write_text(json.dumps(log, indent=1) + "\n")
    print(json.dumps({key: value for key, value in log.items() if key != "loss"}))


if __name__ == "__main__":
    main()

"""Trains the zoo's process reward model: `python -m examples.zoo.reward`, minutes on two cores.

The labels are automatic, by the recipe of Math-Shepherd (arXiv 2312.08935): from each step of a
chain that members wrote, the chain is completed and the final answer checked. A step is good if
some completion is right (hard label), or as good as the share of right ones (soft label). The
members write greedily, so all completions there are can be tried: each member at each next step.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
BASE = "large"
"""The model that is trained further; knowing the facts is what makes a judge of them."""
TAG, GOOD, BAD = "#", "+", "-"
MOST_STEPS = 5
STEP_TOKENS = 32
BATCH = 64
RATE = 5e-4
LOG = "train_log.json"


@dataclass
class Step:
    """A node of the tree of all chains for one question."""

    path: tuple[str, ...]
    """The steps, this one last."""
    ended: bool
    children: list[Step] = field(default_factory=list)
    share: float = 0.0
    """Of the random completions, those that end right."""

    def label(self, answer: str) -> float:
        """Sets the shares from the leaves up."""
        if self.ended or not self.children:
            given = facts.answer_of("\n".join(self.path))
            self.share = float(self.ended and given == answer)
        else:
            self.share = sum(child.label(answer) for child in self.children) / len(self.children)
        return self.share

    def all(self) -> Iterator[Step]:
        yield self
        for child in self.children:
            yield from child.all()


class Writers:
    """The members, each of which writes one greedy step at a time."""

    def __init__(self, threads: int) -> None:
        self._engines = {}
        for name in MEMBERS:
            weights = str(facts.HERE / name)
            config = TransformersEngine(weights=weights, max_queue=100_000, threads=threads)
            engine = TransformersLM(config)
            self._engines[name] = engine, Tokenizer(engine.spec.tokenizer)

    async def steps(self, question: str, path: Sequence[str]) -> list[tuple[str, bool]]:
        """What the members would write next: one line each and whether the answer ends there, in
        their order; equal ones stay, since more members that are right make a likelier step."""

        async def write(name: str) -> tuple[str, bool]:
            engine, tokenizer = self._engines[name]
            text = "".join(f"{step}\n" for step in path)
            prompt = [*tokenizer.chat([Message("user", question)]), *tokenizer.encode(text)]
            wish = Sampling(max_tokens=STEP_TOKENS, stop=("\n",))
            reply = await engine.generate(prompt, wish)
            ended = reply.finish == "eos"
            written = tokenizer.decode(reply.tokens[: len(reply.tokens) - ended])
            return written.strip(), ended or written.startswith("Answer:")

        return list(await asyncio.gather(*map(write, self._engines)))

    async def tree(self, question: str, answer: str) -> list[Step]:
        """All steps of all chains, labelled."""
        root = Step((), False)

        async def grow(node: Step) -> None:
            if len(node.path) < MOST_STEPS and not node.ended:
                known: dict[tuple[str, bool], Step] = {}
                for text, ended in await self.steps(question, node.path):
                    if text and (text, ended) not in known:
                        known[text, ended] = Step((*node.path, text), ended)
                    if text:
                        node.children.append(known[text, ended])
                await asyncio.gather(*(grow(child) for child in known.values()))

        await grow(root)
        root.label(answer)
        return [step for step in {id(s): s for s in root.all()}.values() if step.path]

    async def close(self) -> None:
        for engine, _ in self._engines.values():
            await engine.close()


async def labelled(name: str, limit: int | None, threads: int) -> list[dict[str, object]]:
    """Every step of every chain that the members write for the questions of a file."""
    lines = (facts.HERE / "questions" / f"{name}.jsonl").read_text().splitlines()[:limit]
    writers, gate = Writers(threads), asyncio.Semaphore(24)
    rows: list[dict[str, object]] = []
    started = time.monotonic()

    async def one(line: str) -> None:
        row = json.loads(line)
        async with gate:
            for step in await writers.tree(row["question"], row["answer"]):
                rows.append({"question": row["question"], "steps": step.path, "share": step.share})

    await asyncio.gather(*map(one, lines))
    await writers.close()
    print(
        f"{name}: {len(rows)} steps of {len(lines)} questions, {time.monotonic() - started:.0f} s"
    )
    return sorted(rows, key=lambda row: (str(row["question"]), row["steps"]))


def balanced(rows: Sequence[dict[str, object]], rng: random.Random) -> list[dict[str, object]]:
    """As many bad steps as good ones of each question; steps without a bad one stay."""
    by_question: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        by_question.setdefault(str(row["question"]), []).append(row)
    chosen = []
    for own in by_question.values():
        good = [row for row in own if float(str(row["share"])) > 0]
        bad = [row for row in own if float(str(row["share"])) == 0]
        chosen += good + rng.sample(bad, min(len(bad), 2 * max(len(good), 2)))
    return chosen


def text_of(question: str, steps: Sequence[str]) -> str:
    """A chain as the reward model reads it; ``RewardModelConfig`` says the same in YAML."""
    return f"{question}\n" + "\n".join(f"{step} {TAG}" for step in steps)


def fit(
    model: PreTrainedModel,
    tokenizer: AutoTokenizer,
    rows: list[dict[str, object]],
    steps: int,
    soft: bool,
    rng: random.Random,
) -> list[list[float]]:
    """Trains in place: after the last tag, good or bad. Returns the loss curve."""
    good, bad = (tokenizer.convert_tokens_to_ids(sign) for sign in (GOOD, BAD))
    encoded = []
    for row in rows:
        ids = tokenizer(text_of(str(row["question"]), row["steps"])).input_ids  # type: ignore
        share = float(str(row["share"]))
        encoded.append((ids, share if soft else float(share > 0)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min(1.0, (s + 1) / 30) * (0.02 + 0.49 * (1 + math.cos(math.pi * s / steps))),
    )
    curve: list[list[float]] = []
    recent: list[float] = []
    model.train()
    for step in track(range(1, steps + 1), description="prm"):
        batch = rng.choices(encoded, k=BATCH)
        width = max(len(ids) for ids, _ in batch)
        inputs = torch.full((BATCH, width), int(model.config.pad_token_id))
        for at, (ids, _) in enumerate(batch):
            inputs[at, : len(ids)] = torch.tensor(ids)
        hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
        last = hidden[torch.arange(BATCH), torch.tensor([len(ids) - 1 for ids, _ in batch])]
        logits = model.get_output_embeddings()(last)
        wanted = torch.zeros_like(logits)
        wanted[:, good] = torch.tensor([share for _, share in batch])
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


def values(
    model: PreTrainedModel, tokenizer: AutoTokenizer, rows: Sequence[dict[str, object]]
) -> list[float]:
    """P(good) / (P(good) + P(bad)) after the last tag of each row."""
    good, bad = (tokenizer.convert_tokens_to_ids(sign) for sign in (GOOD, BAD))
    told: list[float] = []
    model.eval()
    with torch.inference_mode():
        for row in rows:
            ids = tokenizer(text_of(str(row["question"]), row["steps"])).input_ids  # type: ignore
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


def examine(folder: Path, held_out: dict[str, list[dict[str, object]]]) -> dict[str, float]:
    """AUC on steps of questions that no model was trained on, from the stored weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    told = {}
    for name, rows in held_out.items():
        good = [float(str(row["share"])) > 0 for row in rows]
        told[f"auc_{name}"] = round(auc(values(model, tokenizer, rows), good), 4)
        told[f"steps_{name}"] = len(rows)
        told[f"good_{name}"] = round(sum(good) / len(good), 4)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=facts.HERE / "prm")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--soft", action="store_true", help="shares as labels, not good or bad")
    parser.add_argument("--held-out", type=int, default=60, help="questions of each file to test")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    logging.disable_progress_bar()
    torch.manual_seed(asked.seed)
    rng = random.Random(asked.seed)
    rows: list[dict[str, object]] = []
    for name in ("one_hop", "two_hop_train", "three_hop_train"):
        rows += balanced(asyncio.run(labelled(name, None, asked.threads)), rng)
    torch.set_num_threads(asked.threads)
    base = facts.HERE / BASE
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    started = time.monotonic()
    curve = fit(model, tokenizer, rows, asked.steps, asked.soft, rng)
    seconds = round(time.monotonic() - started, 1)
    model.to(torch.bfloat16).save_pretrained(asked.out)
    for file in ("tokenizer.json", "tokenizer_config.json"):  # the base's own
        (asked.out / file).write_bytes((base / file).read_bytes())
    held_out = {
        name: asyncio.run(labelled(name, asked.held_out, asked.threads))
        for name in ("two_hop", "three_hop")
    }
    log = {
        "name": asked.out.name,
        "base": BASE,
        "seed": asked.seed,
        "steps": asked.steps,
        "batch": BATCH,
        "labels": "soft" if asked.soft else "hard",
        "labelled_steps": len(rows),
        "seconds": seconds,
        "torch": torch.__version__,
        "loss": curve,
        **examine(asked.out, held_out),
    }
    (asked.out / LOG).write_text(json.dumps(log, indent=1) + "\n")
    print(json.dumps({key: value for key, value in log.items() if key != "loss"}))


if __name__ == "__main__":
    main()

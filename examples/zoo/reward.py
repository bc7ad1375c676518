"""Trains one of the zoo's process reward models: `python -m examples.zoo.reward labels.json`.

The labels are automatic (`python -m examples.zoo.labels labels.json`): a step is good if some
completion of the chain is right (hard label), or as good as the share of right ones (soft label).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import rankdata
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from examples.zoo import facts
from examples.zoo.fitting import fit
from examples.zoo.labels import COMPLETER, HELD_OUT, TRAINED_ON, Row

BASE = "large"
"""The model that is trained further."""
TAG, GOOD, BAD = "#", "+", "-"
BATCH, WARM = 64, 30
AFTER_BAD = 0.2
LOG = "train_log.json"


@dataclass(frozen=True)
class Example:
    """A chain in tokens."""

    ids: list[int]
    labels: list[float]
    """Of its steps."""
    weights: list[float]
    """How much each label counts."""
    facts: list[bool]
    """Of each token: whether it belongs to a step that is good, after none that is bad."""


def text_of(question: str, steps: Sequence[str], last: int | None = None) -> str:
    """A chain as the reward model reads it; ``RewardModelConfig`` says the same in YAML. With
    ``last`` it reads so many steps, and not the question."""
    # A member may draw the tag itself.
    read = "\n".join(f"{step.replace(TAG, '')} {TAG}" for step in steps[-(last or len(steps)) :])
    return read if last else f"{question}\n{read}"


def whole(rows: Sequence[Row]) -> list[Row]:
    """The chains that are not the beginning of another: they hold the labels of all steps."""
    begun = {
        (row["question"], tuple(row["steps"][:end]))
        for row in rows
        for end in range(1, len(row["steps"]))
    }
    return [row for row in rows if (row["question"], tuple(row["steps"])) not in begun]


def train(
    model: PreTrainedModel,
    tokenizer: Any,
    files: Sequence[Sequence[Row]],
    steps: int,
    soft: bool,
    by_questions: bool,
    language: float,
    last: int | None,
    rng: random.Random,
    rate: float = 1e-3,
) -> list[list[float]]:
    """Trains in place, good or bad after every tag. A batch is of one file's questions, half of it
    chains with a good end and half with a bad one, and half of both end with what a member writes
    by itself, as in a search; files count alike or by their questions.
    ``language`` weighs the loss of writing good steps: a judge that forgets the facts that its base
    knows can only remember which steps it has seen. With ``last`` each row's last step is judged by
    so many steps alone. Returns the curve of both losses together."""
    good, bad, tag = (tokenizer.convert_tokens_to_ids(sign) for sign in (GOOD, BAD, TAG))

    def example(row: Row) -> Example:
        ids = tokenizer(text_of(row["question"], row["steps"], last)).input_ids
        shares = [share if soft else float(share > 0) for share in row["shares"]]
        weights, question = label_weights(shares), 0
        if last is None:
            question = len(tokenizer(f"{row['question']}\n").input_ids)
        else:  # of what it reads only the last step is judged
            shares, weights = shares[-last:], [0.0] * len(shares[-last:-1]) + weights[-1:]
        return Example(ids, shares, weights, of_good_steps(ids, question, tag, shares))

    pools: list[dict[tuple[bool, bool], list[Example]]] = [{} for _ in files]
    counts = [len({row["question"] for row in rows}) for rows in files]
    weights = counts if by_questions else [1] * len(files)
    for pool, rows in zip(pools, files, strict=True):
        for row in whole(rows) if last is None else rows:
            kind = row["shares"][-1] > 0, row["greedy"]
            pool.setdefault(kind, []).append(example(row))

    def losses() -> Iterator[torch.Tensor]:
        while True:
            [kinds] = rng.choices(pools, weights)
            size = BATCH // len(kinds)
            batch = [one for kind in kinds.values() for one in rng.choices(kind, k=size)]
            width = max(len(one.ids) for one in batch)
            inputs = torch.full((len(batch), width), int(model.config.pad_token_id))
            stated = torch.zeros(len(batch), width, dtype=torch.bool)
            for at, one in enumerate(batch):
                inputs[at, : len(one.ids)] = torch.tensor(one.ids)
                stated[at, : len(one.ids)] = torch.tensor(one.facts)
            hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
            signs = model.get_output_embeddings().weight
            # Of the two signs alone: what is read is P(good) / (P(good) + P(bad)).
            logits = hidden[inputs == tag] @ (signs[good] - signs[bad])
            wanted = torch.tensor([label for one in batch for label in one.labels])
            chosen_weights = torch.tensor([weight for one in batch for weight in one.weights])
            each = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            loss = (each * chosen_weights).sum() / chosen_weights.sum()
            if language:
                before = hidden[:, :-1][stated[:, 1:]]
                loss = loss + language * cross_entropy(
                    before @ signs.T, inputs[:, 1:][stated[:, 1:]]
                )
            yield loss

    trained = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    return fit(model, optimizer, losses(), steps=steps, warm=WARM, name="prm")


def label_weights(shares: Sequence[float]) -> list[float]:
    """How much each label counts: what follows a bad step is bad, which is soon learnt."""
    return [1.0 if all(shares[:place]) else AFTER_BAD for place in range(len(shares))]


def of_good_steps(
    ids: Sequence[int], question: int, tag: int, labels: Sequence[float]
) -> list[bool]:
    """Which tokens belong to steps that are good, after none that is bad; the first ``question``
    are no step's."""
    found, step, good = [], 0, labels[0] > 0
    for place, token in enumerate(ids):
        found.append(good and place >= question and token != tag)
        if token == tag:
            step += 1
            good = good and step < len(labels) and labels[step] > 0
    return found


def values(
    model: PreTrainedModel, tokenizer: Any, rows: Sequence[Row], last: int | None = None
) -> list[float]:
    """P(good) / (P(good) + P(bad)) after the last tag of each row."""
    good, bad = (tokenizer.convert_tokens_to_ids(sign) for sign in (GOOD, BAD))
    result: list[float] = []
    model.eval()
    with torch.inference_mode():
        for row in rows:
            ids = tokenizer(text_of(row["question"], row["steps"], last)).input_ids
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            result.append(float(torch.sigmoid(logits[good] - logits[bad])))
    return result


def auc(values: Sequence[float], good: Sequence[bool]) -> float:
    """The chance that a good step has a higher value than a bad one; equal values count half."""
    ranks = rankdata(values)
    positive = sum(good)
    total = sum(rank for rank, is_good in zip(ranks, good, strict=True) if is_good)
    return float(total - positive * (positive + 1) / 2) / (positive * (len(good) - positive))


def examine(
    folder: Path, held_out: dict[str, list[Row]], last: int | None = None
) -> dict[str, float]:
    """AUC on steps of questions about countries of other parts, from the stored weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    result: dict[str, float] = {}
    for name, rows in held_out.items():
        good = [row["shares"][-1] > 0 for row in rows]
        result[f"auc_{name}"] = round(auc(values(model, tokenizer, rows, last), good), 4)
        result[f"steps_{name}"] = len(rows)
        result[f"good_{name}"] = round(sum(good) / len(good), 4)
    return result


def freeze(model: PreTrainedModel, parts: Sequence[str]) -> None:
    """Leaves the weights whose names contain one of these as the base has them."""
    for name, weights in model.named_parameters():
        weights.requires_grad_(not any(part in name for part in parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", type=Path, help="what examples.zoo.labels has written")
    parser.add_argument("--out", type=Path, default=facts.HERE / "prm")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--soft", action="store_true", help="shares as labels, not good or bad")
    parser.add_argument("--by-questions", action="store_true", help="of files, instead of alike")
    parser.add_argument("--language", type=float, default=0.5, help="weight of writing good steps")
    parser.add_argument("--frozen", nargs="*", default=[], help="weights kept, by parts of names")
    parser.add_argument("--last", type=int, help="read only so many steps, and no question")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.disable_progress_bar()
    labelled = json.loads(args.labels.read_text())
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    files = [labelled["files"][name] for name in TRAINED_ON]
    base = facts.HERE / BASE
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    freeze(model, args.frozen)
    tokenizer = AutoTokenizer.from_pretrained(base)
    started = time.monotonic()
    curve = train(
        model,
        tokenizer,
        files,
        args.steps,
        args.soft,
        args.by_questions,
        args.language,
        args.last,
        random.Random(args.seed),
        args.rate,
    )
    seconds = round(time.monotonic() - started, 1)
    model.to(torch.bfloat16).save_pretrained(args.out)
    for file in ("tokenizer.json", "tokenizer_config.json"):  # the base's own
        (args.out / file).write_bytes((base / file).read_bytes())
    log = {
        "name": args.out.name,
        "base": BASE,
        "completer": COMPLETER,
        **labelled["settings"],
        "labels": "soft" if args.soft else "hard",
        "by_questions": args.by_questions,
        "language": args.language,
        "frozen": args.frozen,
        "last": args.last,
        "labelled_steps": sum(map(len, files)),
        "seed": args.seed,
        "steps": args.steps,
        "rate": args.rate,
        "batch": BATCH,
        "seconds": seconds,
        "torch": torch.__version__,
        "loss": curve,
        **examine(args.out, {name: labelled["files"][name] for name in HELD_OUT}, args.last),
    }
    (args.out / LOG).write_text(json.dumps(log, indent=1) + "\n")
    print(json.dumps({key: value for key, value in log.items() if key != "loss"}))


if __name__ == "__main__":
    main()

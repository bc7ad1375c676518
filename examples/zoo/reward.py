"""Trains one of the zoo's process reward models: `python -m examples.zoo.reward labels.json`.

The labels are automatic (`python -m examples.zoo.labels labels.json`): a step is good if some
completion of the chain is right (hard label), or as good as the share of right ones (soft label).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import rankdata
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from examples.zoo import facts
from examples.zoo.corpus import prompt
from examples.zoo.fitting import fit
from examples.zoo.labels import COMPLETER, HELD_OUT, TRAINED_ON, VALIDATED_ON, Row

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


def text_of(question: str, steps: Sequence[str]) -> str:
    """A chain as the reward model reads it; ``examples/zoo_three_hop.yaml`` says the same in YAML.
    It is in the form of a conversation, the only one in which the base has its facts at hand."""
    # A member may draw the tag itself.
    return prompt(question) + "\n".join(f"{step.replace(TAG, '')} {TAG}" for step in steps)


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
    rng: random.Random,
    rate: float = 1e-3,
    after: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Trains in place, good or bad after every tag. A batch is of one file's questions, half of it
    chains with a good end and half with a bad one, and half of both end with what a member writes
    by itself, as in a search; files count alike or by their questions.
    ``language`` weighs the loss of writing good steps: a judge that forgets the facts that its base
    knows can only remember which steps it has seen. ``after`` is called now and then with the
    number of steps. Returns the curve of both losses together."""
    good, bad, tag = (tokenizer.convert_tokens_to_ids(sign) for sign in (GOOD, BAD, TAG))

    def example(row: Row) -> Example:
        ids = tokenizer(text_of(row["question"], row["steps"])).input_ids
        shares = [share if soft else float(share > 0) for share in row["shares"]]
        question = len(tokenizer(prompt(row["question"])).input_ids)
        return Example(ids, shares, minds(shares), of_good_steps(ids, question, tag, shares))

    pools: list[dict[tuple[bool, bool], list[Example]]] = [{} for _ in files]
    counts = [len({row["question"] for row in rows}) for rows in files]
    weights = counts if by_questions else [1] * len(files)
    for pool, rows in zip(pools, files, strict=True):
        for row in whole(rows):
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
            minded = torch.tensor([weight for one in batch for weight in one.weights])
            each = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            loss = (each * minded).sum() / minded.sum()
            if language:
                before = hidden[:, :-1][stated[:, 1:]]
                loss = loss + language * cross_entropy(
                    before @ signs.T, inputs[:, 1:][stated[:, 1:]]
                )
            yield loss

    trained = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    return fit(model, optimizer, losses(), steps=steps, warm=WARM, name="prm", after=after)


def minds(shares: Sequence[float]) -> list[float]:
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


@torch.inference_mode()
def values(model: PreTrainedModel, tokenizer: Any, rows: Sequence[Row]) -> list[float]:
    """P(good) / (P(good) + P(bad)) after the last tag of each row."""
    good, bad = (tokenizer.convert_tokens_to_ids(sign) for sign in (GOOD, BAD))
    texts = [tokenizer(text_of(row["question"], row["steps"])).input_ids for row in rows]
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    told = [0.0] * len(texts)
    model.eval()
    for at in range(0, len(order), BATCH):
        part = order[at : at + BATCH]
        # Padding is at the right, so the causal mask alone keeps it out of sight.
        inputs = torch.zeros(len(part), len(texts[part[-1]]), dtype=torch.long)
        for place, one in enumerate(part):
            inputs[place, : len(texts[one])] = torch.tensor(texts[one])
        hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
        ends = hidden[range(len(part)), [len(texts[one]) - 1 for one in part]]
        signs = model.get_output_embeddings().weight
        for one, logit in zip(part, ends @ (signs[good] - signs[bad]), strict=True):
            told[one] = float(torch.sigmoid(logit))
    return told


def auc(values: Sequence[float], good: Sequence[bool]) -> float:
    """The chance that a good step has a higher value than a bad one; equal values count half."""
    ranks = rankdata(values)
    positive = sum(good)
    total = sum(rank for rank, is_good in zip(ranks, good, strict=True) if is_good)
    return float(total - positive * (positive + 1) / 2) / (positive * (len(good) - positive))


def aucs(
    model: PreTrainedModel, tokenizer: Any, files: Mapping[str, Sequence[Row]]
) -> dict[str, float]:
    """AUC on the labelled steps of each file."""
    told: dict[str, float] = {}
    for name, rows in files.items():
        good = [row["shares"][-1] > 0 for row in rows]
        told[name] = round(auc(values(model, tokenizer, rows), good), 4)
    return told


class Best:
    """The weights with the highest mean AUC on files for validation so far."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: Any, files: Mapping[str, Sequence[Row]]
    ) -> None:
        self.model, self.tokenizer, self.files = model, tokenizer, files
        self.curve: list[list[float]] = []
        """[step, mean AUC]"""
        self.weights: dict[str, torch.Tensor] = {}

    def __call__(self, step: int) -> None:
        found = aucs(self.model, self.tokenizer, self.files)
        mean = round(sum(found.values()) / len(found), 4)
        if all(mean > before for _, before in self.curve):
            self.weights = {name: one.clone() for name, one in self.model.state_dict().items()}
        self.curve.append([step, mean])
        self.model.train()


def examine(folder: Path, files: Mapping[str, Sequence[Row]]) -> dict[str, float]:
    """AUC on steps of questions about countries of other parts, from the stored weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = aucs(model, tokenizer, files)
    told = {f"auc_{name}": value for name, value in found.items()}
    for name, rows in files.items():
        told[f"steps_{name}"] = len(rows)
        told[f"good_{name}"] = round(sum(row["shares"][-1] > 0 for row in rows) / len(rows), 4)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", type=Path, help="what examples.zoo.labels has written")
    parser.add_argument("--out", type=Path, default=facts.HERE / "prm")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--soft", action="store_true", help="shares as labels, not good or bad")
    parser.add_argument("--by-questions", action="store_true", help="of files, instead of alike")
    parser.add_argument("--language", type=float, default=0.5, help="weight of writing good steps")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    logging.disable_progress_bar()
    told = json.loads(asked.labels.read_text())
    torch.manual_seed(asked.seed)
    torch.set_num_threads(asked.threads)
    files = [told["files"][name] for name in TRAINED_ON]
    base = facts.HERE / BASE
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    best = Best(model, tokenizer, {name: told["files"][name] for name in VALIDATED_ON})
    started = time.monotonic()
    curve = train(
        model,
        tokenizer,
        files,
        asked.steps,
        asked.soft,
        asked.by_questions,
        asked.language,
        random.Random(asked.seed),
        asked.rate,
        best,
    )
    seconds = round(time.monotonic() - started, 1)
    model.load_state_dict(best.weights)
    model.to(torch.bfloat16).save_pretrained(asked.out)
    for file in ("tokenizer.json", "tokenizer_config.json"):  # the base's own
        (asked.out / file).write_bytes((base / file).read_bytes())
    log = {
        "name": asked.out.name,
        "base": BASE,
        "completer": COMPLETER,
        **told["settings"],
        "labels": "soft" if asked.soft else "hard",
        "by_questions": asked.by_questions,
        "language": asked.language,
        "labelled_steps": sum(map(len, files)),
        "seed": asked.seed,
        "steps": asked.steps,
        "rate": asked.rate,
        "batch": BATCH,
        "seconds": seconds,
        "torch": torch.__version__,
        "loss": curve,
        "validation": best.curve,
        **examine(asked.out, {name: told["files"][name] for name in HELD_OUT}),
    }
    (asked.out / LOG).write_text(json.dumps(log, indent=1) + "\n")
    shown = {key: value for key, value in log.items() if key not in ("loss", "validation")}
    print(json.dumps(shown))


if __name__ == "__main__":
    main()

"""Trains the zoo from scratch: `python -m examples.zoo.train [NAME ...]`, minutes on two cores."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.utils import logging

from examples.zoo import corpus, exam, facts, question_files, vocab
from examples.zoo.fitting import fit
from examples.zoo.models import LENGTH, ZOO, Spec, build

LOG = "train_log.json"
BATCH, WARM = 64, 50
AHEAD = 16
"""Batches drawn together and sorted by length, so that little is padding."""

Batch = tuple[torch.Tensor, torch.Tensor]


def batches(spec: Spec, tokenizer: Tokenizer, pad: int) -> Iterator[Batch]:
    writer = corpus.Writer(spec.knows, spec.seed, spec.relations, spec.advice, spec.mistaken)
    shuffle = torch.Generator().manual_seed(spec.seed)
    while True:
        texts = [
            [(piece.text, piece.weight) for piece in pieces]
            for pieces in islice(writer, BATCH * AHEAD)
        ]
        examples = sorted(vocab.weigh(tokenizer, texts), key=lambda example: len(example[0]))
        for at in torch.randperm(AHEAD, generator=shuffle).tolist():
            part = examples[at * BATCH : (at + 1) * BATCH]
            width = len(part[-1][0])
            ids = torch.full((BATCH, width), pad)
            weights = torch.zeros(BATCH, width)
            for row, (tokens, token_weights) in enumerate(part):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                weights[row, : len(tokens)] = torch.tensor(token_weights)
            yield ids, weights


def loss_of(model: PreTrainedModel, batch: Batch, smoothing: float) -> torch.Tensor:
    ids, weights = batch
    # Padding is at the right, so the causal mask alone keeps it out of sight.
    hidden = model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    counted = weights[:, 1:] > 0
    logits = model.get_output_embeddings()(hidden[counted])
    losses = cross_entropy(logits, ids[:, 1:][counted], reduction="none", label_smoothing=smoothing)
    weights = weights[:, 1:][counted]
    return (losses * weights).sum() / weights.sum()


def train(name: str, folder: Path) -> None:
    spec = ZOO[name]
    torch.manual_seed(spec.seed)
    folder.mkdir(parents=True, exist_ok=True)
    if spec.reads_like is not None:
        tokenizer = Tokenizer.from_file(str(facts.HERE / spec.reads_like / "tokenizer.json"))
    else:
        texts = list(vocab.sample(0, spec.advice))
        tokenizer = vocab.train(spec.tokenizer, spec.vocabulary, texts)
    vocab.save(tokenizer, folder, LENGTH)
    model = build(spec, tokenizer)
    started = time.monotonic()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=spec.rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    source = batches(spec, tokenizer, int(model.config.pad_token_id))
    losses = (loss_of(model, batch, spec.smoothing) for batch in source)
    curve = fit(model, optimizer, losses, steps=spec.steps, warm=WARM, name=name)
    seconds = round(time.monotonic() - started, 1)
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    log = {
        "name": name,
        "relations": spec.relations,
        "known": spec.known,
        "mistaken": spec.mistaken,
        "seed": spec.seed,
        "architecture": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": tokenizer.get_vocab_size(),
        "steps": spec.steps,
        "batch": BATCH,
        "smoothing": spec.smoothing,
        "advice": spec.advice,
        "seconds": seconds,
        "torch": torch.__version__,
        "loss": curve,
    }
    (folder / LOG).write_text(json.dumps(log, indent=1) + "\n")


def examine(folder: Path) -> None:
    """Adds accuracies to the log, measured as others will load the model: from stored weights."""
    log = json.loads((folder / LOG).read_text())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    log["accuracy"] = exam.examine(model, tokenizer, log["relations"])
    (folder / LOG).write_text(json.dumps(log, indent=1) + "\n")


def table(folder: Path) -> str:
    """The README's table, from the logs."""
    relations = " | ".join(facts.RELATIONS)
    lines = [
        f"| model | kind | parameters | vocabulary | seed | seconds | {relations} | two hops "
        "| three hops | corrects | trusts |",
        "|---" * (10 + len(facts.RELATIONS)) + "|",
    ]
    for name in ZOO:
        path = folder / name / LOG
        if not path.exists() or "accuracy" not in path.read_text():
            continue
        log = json.loads(path.read_text())
        scores = log["accuracy"]
        shares = [*scores["one_hop"].values(), scores["two_hop"], scores["three_hop"]]
        shares += scores["knowledge_transfer"].values()
        cells = [
            name,
            log["architecture"].removesuffix("ForCausalLM"),
            f"{log['parameters']:,}",
            f"{log['vocabulary']:,}",
            log["seed"],
            f"{log['seconds']:.0f}",
            *("-" if share is None else f"{share:.3f}" for share in shares),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ZOO)}; or all")
    parser.add_argument("--out", type=Path, default=facts.HERE, help="where the folders go")
    parser.add_argument("--threads", type=int, default=1, help="of the processor, for torch")
    parser.add_argument("--examine", action="store_true", help="measure again, train nothing")
    parser.add_argument("--table", action="store_true", help="only print what the logs say")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in ZOO]
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(ZOO)}")
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    if not arguments.table:
        question_files.write(arguments.out / "questions")
        for name in arguments.names or ZOO:
            if not arguments.examine:
                train(name, arguments.out / name)
            examine(arguments.out / name)
    print(table(arguments.out))


if __name__ == "__main__":
    main()

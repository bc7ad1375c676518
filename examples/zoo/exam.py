"""What a trained model knows: greedy answers to questions, compared with the truth."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from examples.zoo import corpus, facts


@torch.inference_mode()
def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: Sequence[str]
) -> list[str]:
    tokenizer.padding_side = "left"
    texts: list[str] = []
    for at in range(0, len(questions), 64):
        prompts = [corpus.prompt(question) for question in questions[at : at + 64]]
        inputs = tokenizer(
            prompts,
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
            return_token_type_ids=False,
        )
        output = model.generate(**inputs, max_new_tokens=96, do_sample=False)
        texts += tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
    return texts


def share(hits: Sequence[bool]) -> float | None:
    return round(sum(hits) / len(hits), 4) if hits else None


def accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[dict[str, object]],
) -> float | None:
    texts = answers(model, tokenizer, [str(row["question"]) for row in rows])
    return share(
        [facts.answer_of(text) == row["answer"] for text, row in zip(texts, rows, strict=True)]
    )


def advised(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    relations: Sequence[str],
    count: int = 120,
) -> dict[str, float | None]:
    """Given an earlier answer with wrong steps: are known steps corrected, others trusted?"""
    world = facts.load()
    rng = random.Random(0)
    rows = facts.rows(facts.TWO_HOP, test=True)[:count]
    questions: list[str] = []
    expected: list[list[tuple[str, bool]]] = []
    for row in rows:
        wanted: list[tuple[str, bool]] = []
        previous: list[facts.Step] = []
        subject = str(row["country"])
        chain = tuple(row["relations"])  # type: ignore[arg-type]
        if chain[0] == "country":
            subject = world.facts["capital"][subject]
        trusted = True
        for relation in chain:
            step = facts.Step(relation, subject, rng.choice(world.values[relation]))
            truth = world.facts[relation].get(subject)
            previous.append(step)
            if trusted and relation in relations and truth:
                wanted.append((str(facts.Step(relation, subject, truth)), True))
            elif trusted:
                wanted.append((str(step), False))
            trusted = trusted and wanted[-1][0] == str(step)
            subject = step.value
        questions.append(
            facts.KNOWLEDGE_TRANSFER.format(
                question=row["question"], previous=facts.write(previous)
            )
        )
        expected.append(wanted)
    corrected: list[bool] = []
    trusting: list[bool] = []
    for text, wanted in zip(answers(model, tokenizer, questions), expected, strict=True):
        lines = text.split("\n")
        for line, own in wanted:
            (corrected if own else trusting).append(line in lines)
    return {"corrects": share(corrected), "trusts": share(trusting)}


def examine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, relations: Sequence[str]
) -> dict[str, object]:
    model.eval()
    one: dict[str, float | None] = {}
    for relation in facts.RELATIONS:
        rows = facts.rows([(relation,)], test=False)
        # What a model cannot know needs no full count.
        one[relation] = accuracy(model, tokenizer, rows if relation in relations else rows[:60])
    return {
        "one_hop": one,
        "two_hop": accuracy(model, tokenizer, facts.rows(facts.TWO_HOP, test=True)),
        "three_hop": accuracy(model, tokenizer, facts.rows(facts.THREE_HOP, test=True)),
        "knowledge_transfer": advised(model, tokenizer, relations),
    }

"""The same questions to every ensemble and every member alone: accuracy, calls, cost, time."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from openai import APIError, AsyncOpenAI
from rich.table import Table

from deployments.credentials import api_key
from deployments.progress import bar, console
from runtime.answers import given_answer, same_answer
from runtime.errors import ConfigError
from runtime.evaluation_config import EvaluationConfig
from runtime.questions import Question

SEED: Final = 1234
"""Of every request: the same questions have the same answers."""


@dataclass(slots=True)
class Row:
    """One model on all questions. Calls, tokens and cost are sums over the questions."""

    name: str
    kind: str
    accuracy: float
    calls: int
    tokens: int
    """Processed or written by members, beyond what their caches held."""
    cost: float
    seconds: float
    """Wall time for all questions at the configured concurrency."""
    share: dict[str, float] = field(default_factory=dict)
    """Fraction of the accepted spans by each member."""
    expert_share: float | None = None
    """Of the spans that state a fact: the fraction whose author knows that relation."""
    errors: int = 0
    threshold: float | None = None
    """That the requests named."""
    handed_over: float | None = None
    """Share of the tokens that the large member wrote."""
    accuracy_interval: tuple[float, float] | None = None
    """Of 95%, by Wilson's score; None without questions."""


def wilson(right: int, asked: int) -> tuple[float, float] | None:
    """The 95% interval (Wilson's score) of a share of right answers; None if nothing was asked."""
    if asked == 0:
        return None
    from scipy.stats import binomtest  # slow to import

    found = binomtest(right, asked).proportion_ci(method="wilson")
    return round(float(found.low), 4), round(float(found.high), 4)


def fact_authors(question: Question, text: str, spans: Sequence[dict[str, Any]]) -> list[str]:
    """Who wrote the end of each reasoning line, where a step's fact stands."""
    authors, at = [], 0
    for _, line in zip(question.relations, text.split("\n"), strict=False):
        end = at + len(line.rstrip(" ."))
        author = next((s["model"] for s in spans if s["start"] < end <= s["end"]), "")
        authors.append(author)
        at += len(line) + 1
    return authors


async def evaluate(
    base_url: str,
    model: str,
    kind: str,
    questions: Sequence[Question],
    config: EvaluationConfig,
    threshold: float | None = None,
) -> Row:
    """Asks one model every question, ``config.concurrency`` at a time, greedy seeds fixed."""
    client = AsyncOpenAI(base_url=base_url, api_key=api_key(), timeout=600, max_retries=0)
    gate = asyncio.Semaphore(config.concurrency)
    spans: Counter[str] = Counter()
    row = Row(name=model, kind=kind, accuracy=0.0, calls=0, tokens=0, cost=0.0, seconds=0.0)
    named = model if threshold is None else f"{model} @ {threshold:g}"
    row.name, row.threshold = named, threshold
    options = {} if threshold is None else {"ensemble": {"threshold": threshold}}
    written: Counter[str] = Counter()
    facts = known = right = 0
    faults: list[APIError] = []

    async def one(question: Question) -> None:
        nonlocal facts, known, right
        try:
            async with gate:
                reply = await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": question.question}],
                    max_tokens=config.max_tokens,
                    seed=SEED,
                    extra_body=options,
                )
        except APIError as fault:
            faults.append(fault)
            return
        finally:
            step.done()
        text = reply.choices[0].message.content or ""
        summary = (reply.model_extra or {})["ensemble"]
        right += same_answer(given_answer(text, config.answer_pattern), question.answer)
        row.calls += summary["usage"]["model_calls"]
        row.tokens += summary["usage"]["total_tokens"]
        row.cost += summary["cost"]["amount"]
        if isinstance(summary.get("tokens"), dict):
            written.update(summary["tokens"])
        spans.update(span["model"] for span in summary["spans"])
        if config.experts:
            authors = fact_authors(question, text, summary["spans"])
            for relation, author in zip(question.relations, authors, strict=False):
                facts += 1
                known += author == config.experts.get(relation)

    started = time.monotonic()
    with bar(named, len(questions)) as step:
        await asyncio.gather(*map(one, questions))
    row.seconds = time.monotonic() - started
    await client.close()
    if len(faults) == len(questions) > 0:
        raise faults[0]
    if faults:
        console.print(f"{model}: {len(faults)} questions failed; the first: {faults[0]}")
    row.errors = len(faults)
    row.accuracy = right / len(questions) if questions else 0.0
    row.accuracy_interval = wilson(right, len(questions))
    if config.sweep is not None and written:
        row.handed_over = written[config.sweep.large] / max(sum(written.values()), 1)
    total = sum(spans.values())
    row.share = {name: count / total for name, count in sorted(spans.items())}
    if config.experts and kind == "ensemble":
        row.expert_share = known / facts if facts else None
    return row


async def compare(
    base_url: str, questions: Sequence[Question], config: EvaluationConfig
) -> list[Row]:
    """Every model in turn; the endpoint says which are ensembles."""
    async with AsyncOpenAI(base_url=base_url, api_key=api_key(), max_retries=0) as client:
        cards = [card async for card in client.models.list()]
    kinds = {card.id: (card.model_extra or {})["ensemble"]["kind"] for card in cards}
    names = config.models or tuple(kinds)
    for name in names:
        if name not in kinds:
            raise ConfigError(f"the endpoint has no model {name!r}; it has {', '.join(kinds)}")
    swept = {} if config.sweep is None else config.sweep.thresholds
    for name in swept:
        if name not in kinds:
            raise ConfigError(f"evaluation.sweep: the endpoint has no model {name!r}")
    if config.sweep is not None:
        alone = [name for name in names if kinds[name] == "member"]
        if config.sweep.large not in alone or len(alone) != 2:
            raise ConfigError(
                "evaluation.sweep compares with both members alone: list just these two members "
                f"under models, {config.sweep.large} being one"
            )
    rows = [await evaluate(base_url, name, kinds[name], questions, config) for name in names]
    for name, thresholds in swept.items():
        for threshold in thresholds:
            told = (questions, config, threshold)
            rows.append(await evaluate(base_url, name, kinds[name], *told))
    return rows


def between(row: Row) -> str:
    """The interval of a row's accuracy, for people."""
    told = row.accuracy_interval
    return "" if told is None else f"{told[0]:.3f} to {told[1]:.3f}"


def table(rows: Sequence[Row]) -> Table:
    """For people."""
    numbers = ["accuracy", "95%", "calls", "tokens", "cost", "seconds", "errors", "facts by expert"]
    swept = any(row.handed_over is not None for row in rows)
    numbers += ["handed over"] if swept else []
    shown = Table()
    for name in ("model", "kind", *numbers, "spans by"):
        shown.add_column(name, justify="left" if name in ("model", "kind", "spans by") else "right")
    for row in rows:
        shown.add_row(
            row.name,
            row.kind,
            f"{row.accuracy:.3f}",
            between(row),
            str(row.calls),
            str(row.tokens),
            f"{row.cost:.6f}",
            f"{row.seconds:.1f}",
            str(row.errors),
            "" if row.expert_share is None else f"{row.expert_share:.0%}",
            *(["" if row.handed_over is None else f"{row.handed_over:.1%}"] if swept else []),
            ", ".join(f"{name} {share:.0%}" for name, share in row.share.items()),
        )
    return shown


def as_json(rows: Sequence[Row], **more: Any) -> str:
    """One line: ``{"rows": [...]}``, and ``more``."""
    return json.dumps({"rows": [asdict(row) for row in rows], **more})

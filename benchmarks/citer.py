"""What token-level routing costs through Ray Serve, against each member alone and a plain loop.

    python -m benchmarks.citer --json

The threshold is the least that keeps 0.95 of the large member's accuracy on questions for
validation, found between two of the configured ones by halving; accuracy and share with it are
those on the test questions, about other countries (examples/zoo/splits.py). Times are per token,
one question at a time, over HTTP. `citer_over_naive` is over the same ensemble with `plain: true`,
which decides in the coordinator and asks token by token; `citer_over_bare_loop` over such a loop in
this process, over the members' handles, without HTTP, gateway, coordinator, stream and accounts.
Only ratios of one run mean anything. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from benchmarks.quick import add_quick
from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from deployments.launch.backends import ServeBackends
from deployments.launch.local_ray import serving
from deployments.launch.weights import fetch_weights
from deployments.progress import bar
from deployments.wiring import connect
from policies.token.citer import CITERConfig
from runtime.artifacts.token_router import Router, load_router
from runtime.data.grading import answers_match, extract_answer
from runtime.data.questions import Question, read_questions
from runtime.types.query import Message

FIGURES = (
    "threshold",
    "threshold_chosen_on",
    "accuracy_over_large",
    "large_share",
    "citer_over_small",
    "citer_over_large",
    "citer_over_naive",
    "citer_over_bare_loop",
    "router_decisions_per_s",
)
PORT, TURNS, HALVINGS, PLAIN = 8768, 5, 4, "plain"
ENOUGH = 0.95
VALIDATION = Path("examples/zoo/questions/citer_validation.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    add_quick(parser, questions=8, timed=1)
    parser.add_argument("--config", type=Path, default=Path("examples/zoo_citer.yaml"))
    parser.add_argument("--ensemble", default="citer")
    parser.add_argument("--validation", type=Path, default=VALIDATION, help="for the threshold")
    parser.add_argument("--questions", type=int, default=300, help="of each file, for accuracy")
    parser.add_argument("--timed", type=int, default=12, help="questions of them that are timed")
    args = parser.parse_args()
    config = load(args.config)[1]
    figures = measure(config, args.ensemble, args.validation, args.questions, args.timed)
    if not args.json:
        for name, value in figures.items():
            print(f"{name:24} {value}")
    print(json.dumps(figures))


def measure(
    config: AppConfig, name: str, validation: Path, count: int, timed: int
) -> dict[str, Any]:
    ensemble, evaluation = config.ensembles[name], config.evaluation
    assert (
        isinstance(ensemble, CITERConfig)
        and evaluation is not None
        and evaluation.sweep is not None
    )
    small, large = ensemble.pair
    questions = read_questions(Path(evaluation.questions), count)
    thresholds = sorted(evaluation.sweep.thresholds[name])
    router = load_router(Path(ensemble.router))
    fetch_weights(config)
    plain = ensemble.model_copy(update={"plain": True})
    config = config.model_copy(update={"ensembles": {name: ensemble, PLAIN: plain}})
    with serving(config, port=PORT) as url:
        held = read_questions(validation, count)
        threshold = chosen(url, name, large, held, evaluation.answer_pattern, thresholds)
        right, _, _ = accuracy(url, large, large, questions, evaluation.answer_pattern, None)
        options = (questions, evaluation.answer_pattern, threshold)
        found, share, speed = accuracy(url, name, large, *options)
        some = questions[:timed]
        seconds: dict[str, list[float]] = {"citer": [], small: [], large: [], PLAIN: [], "loop": []}
        with bar("timing", TURNS * len(seconds)) as step:
            for turn in range(TURNS):
                for who in seconds:
                    if who == "loop":
                        spent = naive(config, ensemble, router, threshold, some)
                    else:
                        model = name if who == "citer" else who
                        own = threshold if who in ("citer", PLAIN) else None
                        spent = per_token(asyncio.run(ask(url, model, some, 1, own)))
                    if turn:  # the first warms everything
                        seconds[who].append(spent)
                    step.done()
    times = {who: statistics.median(values) for who, values in seconds.items()}
    return {
        "threshold": threshold,
        "threshold_chosen_on": str(validation),
        "accuracy_over_large": round(found / right, 3),
        "large_share": round(share, 3),
        "citer_over_small": round(times["citer"] / times[small], 3),
        "citer_over_large": round(times["citer"] / times[large], 3),
        "citer_over_naive": round(times["citer"] / times[PLAIN], 3),
        "citer_over_bare_loop": round(times["citer"] / times["loop"], 3),
        "router_decisions_per_s": round(speed, 1),
    }


def chosen(
    url: str,
    model: str,
    large: str,
    questions: Sequence[Question],
    pattern: str,
    thresholds: Sequence[float],
) -> float:
    """The least threshold with enough of the large member's accuracy on these questions; where none
    has, the highest of ``thresholds``, which ascend."""

    def right(model: str, threshold: float | None) -> float:
        return accuracy(url, model, large, questions, pattern, threshold)[0]

    enough = ENOUGH * right(large, None)
    low = 0.0
    for threshold in thresholds:
        if right(model, threshold) >= enough:
            break
        low = threshold
    else:
        return threshold
    for _ in range(HALVINGS):
        middle = (low + threshold) / 2
        if right(model, middle) >= enough:
            threshold = middle
        else:
            low = middle
    return threshold


async def ask(
    url: str, model: str, questions: Sequence[Question], at_once: int, threshold: float | None
) -> list[dict[str, Any]]:
    """For each question its text, tokens by author and seconds."""
    gate = asyncio.Semaphore(at_once)
    extra = {} if threshold is None else {"ensemble": {"threshold": threshold}}
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=600, max_retries=0) as client:

        async def one(question: Question) -> dict[str, Any]:
            async with gate:
                started = time.perf_counter()
                reply = await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": question.question}],
                    max_tokens=64,
                    seed=7,
                    extra_body=extra,
                )
                spent = time.perf_counter() - started
            result: Any = (reply.model_extra or {})["ensemble"]
            assert reply.usage is not None
            # A member alone counts no tokens by author; its EOS is one of them all the same.
            tokens = result.get("tokens") or {model: reply.usage.completion_tokens + 1}
            text = reply.choices[0].message.content or ""
            return {"text": text, "tokens": tokens, "seconds": spent}

        return list(await asyncio.gather(*map(one, questions)))


def accuracy(
    url: str,
    model: str,
    large_name: str,
    questions: Sequence[Question],
    pattern: str,
    threshold: float | None,
) -> tuple[float, float, float]:
    """Share of right answers, the large member's share of the tokens, and tokens per second with
    sixteen questions at once."""
    started = time.perf_counter()
    replies = asyncio.run(ask(url, model, questions, 16, threshold))
    spent = time.perf_counter() - started
    right = sum(
        answers_match(extract_answer(reply["text"], pattern), question.answer)
        for reply, question in zip(replies, questions, strict=True)
    )
    written = sum(sum(reply["tokens"].values()) for reply in replies)
    large = sum(reply["tokens"].get(large_name, 0) for reply in replies)
    return right / len(questions), large / written, written / spent


def per_token(replies: Sequence[dict[str, Any]]) -> float:
    written = sum(sum(reply["tokens"].values()) for reply in replies)
    spent: float = sum(reply["seconds"] for reply in replies)
    return spent / written


def naive(
    config: AppConfig,
    ensemble: CITERConfig,
    router: Router,
    threshold: float,
    questions: Sequence[Question],
) -> float:
    """Seconds per token of a loop that decides, and asks, token by token."""
    members = {member: config.members[member] for member in ensemble.pair}

    async def all_questions() -> float:
        connections = connect(members, ServeBackends(config).members(tuple(members)))
        small, large = (connections[member] for member in ensemble.pair)
        await asyncio.gather(small.open(), large.open())
        eos = {*small.spec.eos_ids, *large.spec.eos_ids}
        written, started = 0, time.perf_counter()
        for question in questions:
            ids = small.tokenizer.chat([Message("user", question.question)])
            token = -1
            while token not in eos:
                state = await small.engine.embed([ids])
                sure = router.confidence(state)[0] >= threshold
                [row] = await (small if sure else large).engine.next_token([ids], 1)
                assert row.ids is not None
                token = int(row.ids[0])
                ids.append(token)
                written += 1
        return (time.perf_counter() - started) / written

    return asyncio.run(all_questions())


if __name__ == "__main__":
    main()

"""What token-level fusion costs when one member drafts, against asking all members for each token.

    python -m benchmarks.tokens --json

Times are whole requests over HTTP through Ray Serve on this machine, of the same ensemble twice:
with drafting and with `draft: 0`, which writes the same text; only ratios of one run mean anything.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quick import add_quick, stand_ins
from benchmarks.serving import ask as serving_ask
from benchmarks.serving import coordinator
from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from deployments.launch.local_ray import serving
from deployments.launch.weights import fetch_weights
from deployments.progress import bar
from runtime.data.grading import answers_match, extract_answer
from runtime.data.questions import read_questions

PORT = 8766
METHODS: dict[str, dict[str, Any]] = {
    "gac": {"type": "gac"},
    "unite": {"type": "unite"},
    "deepen": {"type": "deepen"},
    "eva": {"type": "eva"},
    "packllm": {"type": "packllm"},
    "gac+safe": {"type": "gac", "safe": {}},
    "abe": {"type": "abe"},
}
DRAFTED = ("gac", "unite", "deepen", "eva", "packllm")
PRETRAINED = ("gac", "unite")
"""Timed on the pretrained pair, where every token of the plain loop takes both models. DeePEn
answers there once, for its memory; EVA's projection of these vocabularies takes minutes to make."""
FIGURES = (
    "zoo_accuracy",
    "zoo_best_single",
    "drafted_over_naive_zoo",
    "drafted_over_naive_pretrained",
    "drafted_over_slowest_member",
    "same_text_pretrained",
    "acceptance",
    "tokens_per_round",
    "fuse_ms_per_token",
    "deepen_peak_mb",
)
PROMPTS = (
    "Write two sentences about the sea.",
    "What is the capital of France, and why is it famous?",
    "Explain in a few sentences why the sky is blue.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--part", choices=("zoo", "pretrained", "all"), default="all")
    parser.add_argument("--questions", type=int, default=40, help="of the zoo, for accuracy")
    parser.add_argument("--timed", type=int, default=6, help="questions of them that are timed")
    parser.add_argument("--turns", type=int, default=3, help="that everything is timed")
    parser.add_argument("--tokens", type=int, default=24, help="that pretrained members write")
    add_quick(parser, questions=2, timed=1, turns=2, tokens=8)
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    if args.part in ("zoo", "all"):
        config = load(Path("examples/zoo_two_hop.yaml"))[1]
        add_figures(figures, zoo(config, args.questions, args.timed, args.turns))
    if args.part in ("pretrained", "all"):
        config = load(Path("examples/quickstart.yaml"))[1]
        config = stand_ins(config) if args.quick else config
        add_figures(figures, pretrained(config, args.tokens, args.turns))
    if not args.json:
        for name, value in figures.items():
            print(f"{name:32} {value}")
    print(json.dumps(figures))


def add_figures(figures: dict[str, Any], more: dict[str, Any]) -> None:
    """Those of both parts under one name."""
    for name, value in more.items():
        figures[name] = {**figures.get(name, {}), **value} if isinstance(value, dict) else value


def both(config: AppConfig, methods: Sequence[str], drafted: Sequence[str]) -> AppConfig:
    """The members with every method, and with each drafted one as the plain loop too."""
    members = list(config.members)
    ensembles = {name: {"members": members, **METHODS[name]} for name in methods}
    ensembles |= {f"{name}-plain": {**ensembles[name], "draft": 0} for name in drafted}
    document = config.model_dump(mode="json", exclude_unset=True)
    return AppConfig.model_validate({**document, "ensembles": ensembles})


def zoo(config: AppConfig, count: int, alone: int, turns: int) -> dict[str, Any]:
    """Two-hop questions: one at a time for time, many at once for accuracy."""
    assert config.evaluation is not None
    questions = read_questions(Path(config.evaluation.questions), count)
    members = list(config.members)
    timed = questions[:alone]
    figures: dict[str, Any] = defaultdict(dict)
    with serving(both(config, list(METHODS), DRAFTED), port=PORT) as url:
        with bar("zoo questions", len(METHODS) + len(members) + 2 * turns * len(DRAFTED)) as step:
            for model in [*METHODS, *members]:
                replies = asyncio.run(ask(url, model, [q.question for q in questions], at_once=16))
                texts = [reply["text"] for reply in replies]
                given = [extract_answer(text, config.evaluation.answer_pattern) for text in texts]
                right = sum(
                    answers_match(g, q.answer) for g, q in zip(given, questions, strict=True)
                )
                figures["zoo_accuracy"][model] = round(right / len(questions), 3)
                step.done()
            for name in DRAFTED:
                seconds: dict[str, list[float]] = {name: [], f"{name}-plain": []}
                counts: dict[str, int] = defaultdict(int)
                for _ in range(turns):
                    for model in seconds:
                        started = time.perf_counter()
                        asking = ask(url, model, [q.question for q in timed], at_once=1)
                        replies = asyncio.run(asking)
                        seconds[model].append(time.perf_counter() - started)
                        if model == name:
                            add(counts, replies)
                        step.done()
                drafted, plain = (statistics.median(times) for times in seconds.values())
                figures["drafted_over_naive_zoo"][name] = round(drafted / plain, 3)
                add_rates(figures, name, "zoo", counts)
    best = max(members, key=lambda name: figures["zoo_accuracy"][name])
    return {**figures, "zoo_best_single": best}


def pretrained(config: AppConfig, tokens: int, turns: int) -> dict[str, Any]:
    """Real prompts to the two pretrained members, one at a time."""
    fetch_weights(config)
    members = list(config.members)
    figures: dict[str, Any] = defaultdict(dict)
    with serving(both(config, [*PRETRAINED, "deepen"], PRETRAINED), port=PORT) as url:
        models = [name for method in PRETRAINED for name in (method, f"{method}-plain")]
        with bar("real prompts", turns * (len(models) + len(members))) as step:
            seconds: dict[str, list[float]] = defaultdict(list)
            counts: dict[str, dict[str, int]] = {n: defaultdict(int) for n in models}
            same: dict[str, bool] = dict.fromkeys(PRETRAINED, True)
            for turn in range(turns):  # the first learns who drafts best and warms everything
                texts = {}
                for model in [*models, *members]:
                    started = time.perf_counter()
                    asking = ask(url, model, PROMPTS, at_once=1, tokens=tokens, exactly=True)
                    replies = asyncio.run(asking)
                    if turn:
                        seconds[model].append(time.perf_counter() - started)
                    texts[model] = [reply["text"] for reply in replies]
                    if model in counts:
                        add(counts[model], replies)
                    step.done()
                for name in PRETRAINED:
                    same[name] &= texts[name] == texts[f"{name}-plain"]
        asyncio.run(ask(url, "deepen", PROMPTS[:1], at_once=1, tokens=tokens))
        peak = peak_mb("deepen")
    times = {model: statistics.median(values) for model, values in seconds.items()}
    slowest = max(times[name] for name in members)
    for name in PRETRAINED:
        figures["drafted_over_naive_pretrained"][name] = round(
            times[name] / times[f"{name}-plain"], 3
        )
        figures["drafted_over_slowest_member"][name] = round(times[name] / slowest, 3)
        figures["same_text_pretrained"][name] = same[name]
        add_rates(figures, name, "pretrained", counts[name])
    return {**figures, "deepen_peak_mb": peak}


def peak_mb(model: str) -> int:
    """The most memory that an ensemble's coordinator has held so far: its whole process, with both
    tokenizers and the tables of embeddings that it has mapped."""
    status = Path(f"/proc/{coordinator(model).pid}/status").read_text()
    [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return round(int(peak) / 1024)


def add(counts: dict[str, int], replies: Sequence[dict[str, Any]]) -> None:
    for reply in replies:
        state = reply["state"]
        for key, value in state["counts"].items():
            counts[key] += value
        counts["tokens"] += len(state["pieces"])
        counts["fuse_us"] += round(1e6 * state["fuse_seconds"])


def add_rates(figures: dict[str, Any], name: str, part: str, counts: dict[str, int]) -> None:
    place = f"{name}, {part}"
    figures["acceptance"][place] = round(counts["kept"] / max(counts["drafted"], 1), 3)
    figures["tokens_per_round"][place] = round(counts["tokens"] / counts["rounds"], 2)
    figures["fuse_ms_per_token"][place] = round(counts["fuse_us"] / 1000 / counts["fused"], 3)


async def ask(
    url: str,
    model: str,
    questions: Sequence[str],
    *,
    at_once: int,
    tokens: int = 64,
    exactly: bool = False,
) -> list[dict[str, Any]]:
    """Greedy answers with the state that the method keeps."""
    fields = {"max_tokens": tokens, "temperature": 0, "extra_body": {"ignore_eos": exactly}}
    replies = await serving_ask(url, model, questions, at_once=at_once, **fields)
    return [
        {"text": reply["text"], "state": reply["ensemble"]["full"]["state"]} for reply in replies
    ]


if __name__ == "__main__":
    main()

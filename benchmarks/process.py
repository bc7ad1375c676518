"""What a tree search over reasoning steps costs.

    python -m benchmarks.process --json
    python -m benchmarks.process --json --pretrained

Three-hop questions to the zoo's specialists with the zoo's reward model, over HTTP through Ray
Serve (examples/zoo_three_hop.yaml). ``--pretrained``: to the two pretrained LLMs of
examples/quickstart.yaml, their own likelihood as value, in shorter searches; there the time goes
into the models' arithmetic. The last line is one JSON object; only ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quick import add_quick, stand_ins
from benchmarks.serving import ask, coordinator
from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from deployments.launch.local_ray import serving
from deployments.launch.weights import fetch_weights
from deployments.progress import bar
from policies.process.le_mcts import LEMCTSConfig
from runtime.data.questions import read_questions

PORT = 8767
CONFIG = Path("examples/zoo_three_hop.yaml")
LONG, SHORT = "le-mcts", "le-mcts-25"
PRETRAINED = Path("examples/quickstart.yaml")
ITERATIONS, STEP_TOKENS, AT_ONCE = 12, 16, 16
"""Of the pretrained members' searches."""
QUICK = {LONG: 20, SHORT: 5}
"""Iterations."""
FIGURES = (
    "iterations_per_s_1",
    "iterations_per_s_16",
    "iterations_per_s_16_over_1",
    "cache_hit_rate",
    "coordinator_ms_per_iteration",
    "seconds_200_over_25",
    "iterations_of_200",
)
FIGURES_PRETRAINED = (
    "iterations_per_s_1_pretrained",
    "iterations_per_s_16_pretrained",
    "iterations_per_s_16_over_1_pretrained",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--questions", type=int, default=64, help="sent 16 at a time")
    parser.add_argument("--alone", type=int, default=8, help="sent one at a time")
    parser.add_argument("--pretrained", action="store_true", help="on two pretrained LLMs")
    add_quick(parser, questions=4, alone=1)
    args = parser.parse_args()
    config = load(CONFIG)[1]
    if args.pretrained:
        pair = load(PRETRAINED)[1]
        questions = questions_of(config, 4 + (2 if args.quick else AT_ONCE))
        figures = measure_pretrained(stand_ins(pair) if args.quick else pair, questions)
    else:
        config = shortened(config) if args.quick else config
        figures = measure(config, args.questions, args.alone)
    if not args.json:
        for name, value in figures.items():
            print(f"{name:32} {value}")
    print(json.dumps(figures))


def shortened(config: AppConfig) -> AppConfig:
    """The same searches with few iterations."""
    short = {
        name: config.ensembles[name].model_copy(update={"n_iter": iterations})
        for name, iterations in QUICK.items()
    }
    return config.model_copy(update={"ensembles": config.ensembles | short})


def questions_of(config: AppConfig, count: int) -> list[str]:
    assert config.evaluation is not None
    return [q.question for q in read_questions(Path(config.evaluation.questions), count)]


def measure_pretrained(config: AppConfig, questions: Sequence[str]) -> dict[str, float]:
    search_config = LEMCTSConfig(
        members=tuple(config.members),
        reward="likelihood",
        n_iter=ITERATIONS,
        step_tokens=STEP_TOKENS,
    )
    fetch_weights(config)
    with serving(config.model_copy(update={"ensembles": {LONG: search_config}}), port=PORT) as url:
        with bar("searches", len(questions)) as step:
            asyncio.run(search(url, LONG, questions[:1], 1, step.done))  # warms everything
            started = time.perf_counter()
            ones = asyncio.run(search(url, LONG, questions[1:4], 1, step.done))
            alone = time.perf_counter() - started
            started = time.perf_counter()
            sixteen = asyncio.run(search(url, LONG, questions[4:], AT_ONCE, step.done))
            seconds_at_once = time.perf_counter() - started
    one = sum(result["iterations"] for result in ones) / alone
    at_once = sum(result["iterations"] for result in sixteen) / seconds_at_once
    return {
        "iterations_per_s_1_pretrained": round(one, 2),
        "iterations_per_s_16_pretrained": round(at_once, 2),
        "iterations_per_s_16_over_1_pretrained": round(at_once / one, 2),
    }


def measure(config: AppConfig, many: int, alone: int) -> dict[str, float]:
    questions = questions_of(config, many)
    wanted = {name: config.ensembles[name] for name in (LONG, SHORT)}
    with serving(config.model_copy(update={"ensembles": wanted}), port=PORT) as url:
        with bar("searches", 4 + 2 * alone + many) as step:
            asyncio.run(search(url, LONG, questions[-4:], 4, step.done))  # warms everything
            before = coordinator_seconds(LONG)
            seconds: dict[str, list[float]] = {LONG: [], SHORT: []}
            ones: list[dict[str, Any]] = []
            for question in questions[:alone]:
                for model in seconds:
                    started = time.perf_counter()
                    result = asyncio.run(search(url, model, [question], 1, step.done))
                    seconds[model].append(time.perf_counter() - started)
                    ones += result if model == LONG else []
            started = time.perf_counter()
            sixteen = asyncio.run(search(url, LONG, questions, 16, step.done))
            seconds_at_once = time.perf_counter() - started
            used = coordinator_seconds(LONG) - before
    iterations = [sum(result["iterations"] for result in group) for group in (ones, sixteen)]
    members = [member for result in (*ones, *sixteen) for member in result["members"]]
    cached = sum(member["cached_tokens"] for member in members)
    read = cached + sum(member["prompt_tokens"] for member in members)
    one, at_once = iterations[0] / sum(seconds[LONG]), iterations[1] / seconds_at_once
    return {
        "iterations_per_s_1": round(one, 1),
        "iterations_per_s_16": round(at_once, 1),
        "iterations_per_s_16_over_1": round(at_once / one, 2),
        "cache_hit_rate": round(cached / read, 3),
        "coordinator_ms_per_iteration": round(1000 * used / sum(iterations), 2),
        "seconds_200_over_25": round(
            statistics.median(seconds[LONG]) / statistics.median(seconds[SHORT]), 2
        ),
        "iterations_of_200": round(statistics.mean(result["iterations"] for result in sixteen), 1),
    }


def coordinator_seconds(model: str) -> float:
    """Processor seconds of an ensemble's coordinator so far: searching, and all its messages."""
    times = coordinator(model).cpu_times()
    return float(times.user + times.system)


async def search(
    url: str, model: str, questions: Sequence[str], at_once: int, done: Callable[[], None]
) -> list[dict[str, Any]]:
    """The iterations of each search, and the calls of the members."""
    replies = await ask(url, model, questions, at_once=at_once, done=done, max_tokens=80)
    result = [reply["ensemble"] for reply in replies]
    return [
        {"iterations": one["full"]["state"]["iterations"], "members": one["members"]}
        for one in result
    ]


if __name__ == "__main__":
    main()

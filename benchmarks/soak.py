"""Whether an ensemble under load without a pause stays as it is: throughput, latency, errors,
and what each process holds in memory.

    make soak                                   # ten minutes, 64 clients
    python -m benchmarks.soak --minutes 3 --clients 32 --json

Clients stream answers of the zoo's ensembles, one question after the other; every eighth leaves in
the middle of its answer, and every eighth reads slowly. The last line is one JSON object. Memory is
what a process holds for itself (USS), in MiB: ``growth`` is the median of the last fifth of the run
over that of the third fifth, when caches have filled; ``mb_per_hour`` the slope between the two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from openai import APIError, AsyncOpenAI

from benchmarks.quick import add_quick
from deployments.config.serve_file import load
from deployments.launch.local_ray import serving
from runtime.data.questions import read_questions

CONFIG = Path("examples/zoo_two_hop.yaml")
QUESTIONS = Path("examples/zoo/questions/two_hop.jsonl")
MODELS = ("sweetspan", "specfuse", "capitals")
PORT = 8768
EVERY, LEAVES, DAWDLES, DAWDLE_S = 8, 0, 4, 0.3
SAMPLE_S, SAMPLES = 5.0, 120
"""Memory is looked at this often, in short runs so many times."""
PARTS = 5
FIGURES = (
    "minutes",
    "clients",
    "answers",
    "left",
    "errors",
    "answers_per_s",
    "first_span_p50_s",
    "first_span_p99_s",
    "largest_growth",
    "memory",
)


@dataclass
class Seen:
    """What the clients saw."""

    firsts: list[float] = field(default_factory=list)
    """Seconds to the first span."""
    answers: int = 0
    left: int = 0
    errors: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    add_quick(parser, minutes=0.2, clients=8)
    args = parser.parse_args()
    questions = [question.question for question in read_questions(QUESTIONS)]
    with serving(load(CONFIG)[1], port=PORT) as url:
        seen, memory = asyncio.run(soak(url, questions, args.clients, args.minutes * 60))
    result = figures(seen, memory, args.clients, args.minutes)
    if not args.json:
        for name, process in result["memory"].items():
            print(f"{name:40} {process}")
    print(json.dumps(result), flush=True)


async def soak(
    url: str, questions: Sequence[str], clients: int, seconds: float
) -> tuple[Seen, dict[str, list[tuple[float, float]]]]:
    """What was seen, and each process's memory over time."""
    seen, numbers = Seen(), count()
    memory: dict[str, list[tuple[float, float]]] = defaultdict(list)
    end = time.monotonic() + seconds

    async def client(openai: AsyncOpenAI) -> None:
        while time.monotonic() < end:
            number = next(numbers)
            await one(
                openai, MODELS[number % len(MODELS)], questions[number % len(questions)], number
            )

    async def one(openai: AsyncOpenAI, model: str, question: str, number: int) -> None:
        started, first = time.monotonic(), False
        try:
            stream = await openai.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                seed=number,
                stream=True,
            )
            async with stream:
                async for chunk in stream:
                    if chunk.choices[0].delta.content and not first:
                        first = True
                        seen.firsts.append(time.monotonic() - started)
                        if number % EVERY == LEAVES:
                            seen.left += 1
                            return
                    if number % EVERY == DAWDLES:
                        await asyncio.sleep(DAWDLE_S)
            seen.answers += 1
        except APIError as fault:
            seen.errors[str(fault.code or type(fault).__name__)] += 1

    async def watch() -> None:
        began = time.monotonic()
        while True:
            for name, held in await asyncio.to_thread(held_by_each):
                memory[name].append((time.monotonic() - began, held))
            await asyncio.sleep(min(SAMPLE_S, seconds / SAMPLES))

    watching = asyncio.create_task(watch())
    try:
        async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=300) as openai:
            await asyncio.gather(*(client(openai) for _ in range(clients)))
    finally:
        watching.cancel()
    return seen, memory


def held_by_each() -> list[tuple[str, float]]:
    """Our processes and Ray's, by name and pid, with MiB of their own memory."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
            name = words[0].split("/")[-1] if words else process.name()
            held = process.memory_full_info().uss / 2**20
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if name.startswith("ray::") or name in ("raylet", "gcs_server"):
            # What an actor is doing stands behind a dot.
            actor = name.removeprefix("ray::").split(".")[0]
            found.append((f"{actor} ({process.pid})", held))
    return found


def figures(
    seen: Seen,
    memory: dict[str, list[tuple[float, float]]],
    clients: int,
    minutes: float,
) -> dict[str, Any]:
    firsts = sorted(seen.firsts) or [0.0]
    grown = {name: growth(held) for name, held in sorted(memory.items()) if len(held) >= 2 * PARTS}
    return {
        "minutes": minutes,
        "clients": clients,
        "answers": seen.answers,
        "left": seen.left,
        "errors": dict(seen.errors),
        "answers_per_s": round(seen.answers / (minutes * 60), 2),
        "first_span_p50_s": round(statistics.median(firsts), 3),
        "first_span_p99_s": round(firsts[min(len(firsts) - 1, int(0.99 * len(firsts)))], 3),
        "largest_growth": max((result["growth"] for result in grown.values()), default=1.0),
        "memory": grown,
    }


def growth(held: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Of one process; see above."""
    part = len(held) // PARTS
    early, late = held[2 * part : 3 * part], held[-part:]
    before, after = (statistics.median(mb for _, mb in some) for some in (early, late))
    between = statistics.mean(at for at, _ in late) - statistics.mean(at for at, _ in early)
    return {
        "mb": round(after, 1),
        "growth": round(after / before, 3),
        "mb_per_hour": round((after - before) / between * 3600, 1),
    }


if __name__ == "__main__":
    main()

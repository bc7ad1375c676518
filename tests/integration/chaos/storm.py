"""Kills processes at random while clients stream, and counts what becomes of the answers."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx2
import psutil
from openai import APIError, AsyncOpenAI

from deployments.launch.local_ray import APP
from examples.unbroken import unbroken

REPLICA = re.compile(rf"ServeReplica:{APP}:([\w-]+)")
KINDS = {"member": 4, "ensemble": 3, "reward": 1, "gateway": 1, "proxy": 2}
"""How often each kind of process is hit, relative to the others."""


@dataclass(slots=True)
class StreamedAnswer:
    """One answer as its client got it."""

    family: str
    text: str = ""
    seconds: float = 0.0
    first: float = 0.0
    breaks: int = 0
    degraded: bool = False
    error: str | None = None
    """The code of a well-formed error."""


@dataclass
class Figures:
    requests: int = 0
    complete: int = 0
    wrong_text: int = 0
    """Complete with a character too many or too few. The spaces around a text do not count: a
    cascade that emits an earlier member's answer emits it without."""
    wrong: list[str] = field(default_factory=list)
    """Where such texts go wrong."""
    errors: dict[str, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    reconnected: int = 0
    """Times that a client's connection broke and it came back."""
    degraded: int = 0
    """Answers that went on without a member."""
    median_s: float = 0.0
    p99_s: float = 0.0
    longest_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def kind_of(process: psutil.Process) -> str | None:
    title = " ".join(process.cmdline())
    if "ProxyActor" in title:
        return "proxy"
    found = REPLICA.search(title)
    return None if found is None else found[1].split("-")[0]


def targets(root: psutil.Process) -> dict[str, list[psutil.Process]]:
    """Processes that may be hit, by kind."""
    found: dict[str, list[psutil.Process]] = {}
    for process in root.children(recursive=True):
        try:
            kind = kind_of(process)
        except psutil.NoSuchProcess:
            continue
        if kind in KINDS:
            found.setdefault(kind, []).append(process)
    return found


async def strike(drawn: random.Random, kills: Counter[str], pause: tuple[float, float]) -> None:
    """Kills one process after the other, with -9, until it is cancelled: each kind once, and then
    at random."""
    root, first = psutil.Process(), drawn.sample(sorted(KINDS), len(KINDS))
    while True:
        await asyncio.sleep(drawn.uniform(*pause))
        found = targets(root)
        kinds = sorted(found)
        if not kinds:
            continue
        [kind] = drawn.choices(kinds, [KINDS[kind] for kind in kinds])
        kind = next((wanted for wanted in first if wanted in kinds), kind)
        try:
            drawn.choice(found[kind]).send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
        kills[kind] += 1
        first = [wanted for wanted in first if wanted != kind]


async def ask(client: AsyncOpenAI, family: str, seed: int, patience_s: float) -> StreamedAnswer:
    result, started = StreamedAnswer(family), time.monotonic()

    def broken(_: Exception | None) -> None:
        result.breaks += 1

    request = {
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 4096,
        "seed": seed,
    }
    try:
        async for chunk in unbroken(client, patience_s, broken, model=family, **request):
            if chunk.choices[0].delta.content:
                result.first = result.first or time.monotonic() - started
                result.text += chunk.choices[0].delta.content
            if chunk.choices[0].finish_reason:
                result.degraded = chunk.model_extra["ensemble"]["degraded"]
    except APIError as fault:
        result.error = str(fault.code or type(fault).__name__)
    except (OSError, EOFError, httpx2.TransportError) as fault:
        result.error = type(fault).__name__
    result.seconds = time.monotonic() - started
    return result


async def load(
    url: str, families: Sequence[str], requests: int, at_once: int, patience_s: float = 120.0
) -> list[StreamedAnswer]:
    """``requests`` answers, ``at_once`` at a time, the families in turn."""
    numbers = iter(range(requests))
    done: list[StreamedAnswer] = []

    async def client_of(openai: AsyncOpenAI) -> None:
        for number in numbers:
            family = families[number % len(families)]
            done.append(await ask(openai, family, number, patience_s))

    async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=300) as openai:
        await asyncio.gather(*(client_of(openai) for _ in range(min(at_once, requests))))
    return done


async def storm(
    url: str,
    families: Sequence[str],
    requests: int,
    at_once: int,
    pause: tuple[float, float],
    least_kills: int,
    seed: int = 0,
) -> tuple[list[StreamedAnswer], Counter[str]]:
    """The load under fire. Goes on with more requests until there were ``least_kills``."""
    kills: Counter[str] = Counter()
    striking = asyncio.create_task(strike(random.Random(seed), kills, pause))
    result: list[StreamedAnswer] = []
    try:
        while len(result) < requests or kills.total() < least_kills:
            more = max(requests - len(result), at_once)
            result += await load(url, families, more, at_once)
    finally:
        striking.cancel()
    return result, kills


def figures(
    result: Sequence[StreamedAnswer], text: str, kills: Counter[str] | None = None
) -> Figures:
    complete = [one for one in result if one.error is None]
    seconds = sorted(one.seconds for one in complete) or [0.0]
    wrong = [one for one in complete if one.text.strip() != text.strip()]
    return Figures(
        requests=len(result),
        complete=len(complete),
        wrong_text=len(wrong),
        wrong=[f"{one.family}: {_differs(one.text, text)}" for one in wrong[:5]],
        errors=dict(Counter(one.error for one in result if one.error is not None)),
        kills=dict(kills or {}),
        reconnected=sum(one.breaks for one in result),
        degraded=sum(one.degraded for one in result),
        median_s=round(statistics.median(seconds), 2),
        p99_s=round(seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))], 2),
        longest_s=round(seconds[-1], 2),
    )


def _differs(text: str, right: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(text, right, strict=False)) if a != b), None)
    place = min(len(text), len(right)) if at is None else at
    around = slice(max(place - 10, 0), place + 20)
    return f"{len(text)} of {len(right)} characters, {text[around]!r} for {right[around]!r}"

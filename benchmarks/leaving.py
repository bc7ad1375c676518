"""How long members go on writing for a client that has left, and how much.

    python -m benchmarks.leaving --json

One member of the zoo writes long answers alone, over HTTP through Ray Serve; clients leave after
the first words. Tokens are estimated from the CPU time of the member's process: what an answer that
nobody leaves takes, for each of its tokens. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import psutil
from openai import OpenAI

from benchmarks.quick import add_quick
from deployments.config.app_config import AppConfig
from deployments.launch.local_ray import APP, serving
from deployments.serving.names import member_deployment

PORT = 8769
MEMBER = "capitals"
TOKENS = 200
FIGURES = (
    "cpu_ms_per_token",
    "seconds_until_rest_median",
    "seconds_until_rest_longest",
    "tokens_burned_median",
    "tokens_burned_most",
    "tokens_of_an_answer",
)
CONFIG: dict[str, Any] = {
    "members": {
        MEMBER: {
            "engine": {"type": "transformers", "weights": f"zoo:{MEMBER}", "threads": 1},
            "replica": {"num_cpus": 0.5},
        }
    },
    "ensembles": {"pieces": {"type": "single", "members": [MEMBER], "chunk_tokens": 8}},
}
TICK_S, IDLE = 0.1, 0.25
"""A tick with less CPU time than this part of it is one of rest: Ray does a little all the time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--repeats", type=int, default=10)
    add_quick(parser, repeats=2)
    args = parser.parse_args()
    with serving(AppConfig.model_validate(CONFIG), port=PORT) as url:
        with OpenAI(base_url=url, api_key="any", max_retries=0, timeout=120) as client:
            result = measure(client, replica(), args.repeats)
    if not args.json:
        for name, value in result.items():
            print(f"{name:32} {value}")
    print(json.dumps(result), flush=True)


def replica() -> psutil.Process:
    """The member's process."""
    title = f"ServeReplica:{APP}:{member_deployment(MEMBER)}"
    [found] = [
        process
        for process in psutil.Process().children(recursive=True)
        if title in " ".join(process.cmdline())
    ]
    return found


def measure(client: OpenAI, member: psutil.Process, repeats: int) -> dict[str, Any]:
    for _ in stream(client):  # warm
        pass
    cpu, before = [], 0.0
    for _ in range(3):
        before = used(member)
        for _ in stream(client):
            pass
        cpu.append((used(member) - before) / TOKENS)
    per_token = statistics.median(cpu)
    rests, burned = [], []
    for _ in range(repeats):
        with stream(client) as open_stream:
            next(chunk for chunk in open_stream if chunk.choices[0].text)
        rest, spent = until_rest(member)
        rests.append(rest)
        burned.append(spent / per_token)
    return {
        "cpu_ms_per_token": round(1000 * per_token, 3),
        "seconds_until_rest_median": round(statistics.median(rests), 3),
        "seconds_until_rest_longest": round(max(rests), 3),
        "tokens_burned_median": round(statistics.median(burned), 1),
        "tokens_burned_most": round(max(burned), 1),
        "tokens_of_an_answer": TOKENS,
    }


def stream(client: OpenAI) -> Any:
    return client.completions.create(
        model="pieces",
        prompt="The capital of",
        max_tokens=TOKENS,
        stream=True,
        extra_body={"ignore_eos": True},
    )


def until_rest(member: psutil.Process) -> tuple[float, float]:
    """Seconds until the process is at rest, and CPU seconds until then; both of the tick in which
    it came to rest too, so rather too many."""
    left, start = time.monotonic(), used(member)
    before = start
    while True:
        began = time.monotonic()
        time.sleep(TICK_S)
        level = used(member)
        if level - before < IDLE * (time.monotonic() - began):
            return time.monotonic() - left, level - start
        before = level


def used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()

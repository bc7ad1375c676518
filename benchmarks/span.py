"""What span-level ensembles cost: over their members' own time, over a naive loop, and under load.

    python -m benchmarks.span --json

Times are whole requests over HTTP through Ray Serve on this machine; only ratios of one run mean
anything. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAI

from benchmarks.quick import add_quick, stand_ins
from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from deployments.launch.local_ray import APP, serving
from deployments.launch.weights import fetch_weights
from deployments.progress import bar, console
from runtime.config.engines import TransformersEngine
from runtime.data.questions import read_questions
from runtime.tokenization.tokenizer import Tokenizer
from runtime.weights import resolve

PASSAGE = Path(__file__).parent / "passage.txt"
PORT = 8765
FIGURES = (
    "throughput_16_over_1",
    "calls_per_message",
    "calls_per_message_without_coalescing",
    "coalescing_speedup",
    "answers_per_s_one",
    "answers_per_s_specfuse",
    "answers_per_s_split",
    "specfuse_over_members",
    "sweetspan_over_members",
    "specfuse_speedup_over_naive",
    "naive_gives_the_same_text",
    "seconds_naive",
    "seconds_smollm2",
    "seconds_gemma3",
    "seconds_specfuse",
    "seconds_sweetspan",
)


@dataclass(frozen=True)
class Size:
    """The size of a run."""

    prompt_tokens: int = 600
    new_tokens: int = 128
    warm_up: int = 16
    """Questions to the zoo."""
    together: int = 64
    """The same, 16 at a time."""
    alone: int = 24
    """The same, one at a time."""


FULL = Size()
QUICK = Size(prompt_tokens=100, new_tokens=12, warm_up=2, together=6, alone=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--part", choices=("pretrained", "zoo", "all"), default="all")
    add_quick(parser, repeats=1)
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    size = QUICK if args.quick else FULL
    if args.part in ("zoo", "all"):
        figures |= zoo(load(Path("examples/zoo_two_hop.yaml"))[1], size)
    if args.part in ("pretrained", "all"):
        config = load(Path("examples/quickstart.yaml"))[1]
        config = stand_ins(config) if args.quick else config
        figures |= pretrained(config, args.repeats, size)
    if not args.json:
        for name, value in figures.items():
            print(f"{name:32} {value}")
    print(json.dumps(figures))


def pretrained(config: AppConfig, repeats: int, size: Size) -> dict[str, Any]:
    """A 600-token prompt and 128 new tokens: ensembles, their members alone, and the naive loop."""
    fetch_weights(config)
    folders = {
        name: resolve(member.engine.weights, member.engine.sha256)
        for name, member in config.members.items()
        if isinstance(member.engine, TransformersEngine)
    }
    reporter = next(iter(folders))
    tokenizer = Tokenizer.from_folder(folders[reporter])
    members, ensembles = list(folders), ["specfuse", "sweetspan"]
    seconds: dict[str, list[float]] = {name: [] for name in [*members, *ensembles]}
    texts: list[str] = []
    with serving(config, port=PORT) as url:
        client = OpenAI(base_url=url, api_key="none", timeout=900, max_retries=0)
        complete(client, reporter, "Once upon a time", 4)
        with bar(f"{size.prompt_tokens}-token prompts", len(seconds) * repeats) as step:
            for run in range(repeats):
                for model in seconds:
                    prompt = long_prompt(tokenizer, f"{model}, part {run + 1}", size.prompt_tokens)
                    started = time.perf_counter()
                    text = complete(client, model, prompt, size.new_tokens)
                    seconds[model].append(time.perf_counter() - started)
                    if model == "specfuse":
                        texts.append(text)
                    step.done()
    first = long_prompt(tokenizer, "specfuse, part 1", size.prompt_tokens)
    naive_seconds, same = naive(folders, first, texts[0], size.new_tokens)
    times = {name: statistics.median(values) for name, values in seconds.items()}
    own = sum(times[name] for name in members)
    return {
        "specfuse_over_members": round(times["specfuse"] / own, 3),
        "sweetspan_over_members": round(times["sweetspan"] / own, 3),
        "specfuse_speedup_over_naive": round(naive_seconds / seconds["specfuse"][0], 2),
        "naive_gives_the_same_text": same,
        "seconds_naive": round(naive_seconds, 2),
    } | {f"seconds_{name}": round(value, 2) for name, value in times.items()}


def long_prompt(tokenizer: Tokenizer, title: str, tokens: int = FULL.prompt_tokens) -> str:
    """So many tokens; every title begins differently, so no run finds another's in a cache."""
    ids = tokenizer.encode(f"Notes of {title}.\n" + PASSAGE.read_text())
    assert len(ids) >= tokens, "repeated text would only be copied, by all members alike"
    return tokenizer.decode(ids[:tokens])


def complete(client: OpenAI, model: str, prompt: str, tokens: int) -> str:
    reply = client.completions.create(
        model=model,
        prompt=prompt,
        max_tokens=tokens,
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    assert reply.usage is not None
    assert reply.usage.completion_tokens == tokens, "every run must write as much"
    return reply.choices[0].text


def naive(folders: dict[str, Path], prompt: str, expected: str, tokens: int) -> tuple[float, bool]:
    """Seconds of the loop without caches, one thread to each model as the members have."""
    import torch

    from benchmarks.naive_specfuse import Naive, write

    torch.set_num_threads(1)
    console.log("the naive loop; this takes minutes")
    models = {name: Naive.load(folder) for name, folder in folders.items()}
    started = time.perf_counter()
    text = write(models, prompt, tokens, next(iter(folders)))
    return time.perf_counter() - started, text == expected


def zoo(config: AppConfig, size: Size) -> dict[str, Any]:
    """16 requests at a time against one at a time, and what coalescing messages saves."""
    from ray import serve

    from deployments.serving.names import ensemble_deployment

    split = config.ensembles["specfuse"].model_copy(update={"coalesce": False})
    config = config.model_copy(update={"ensembles": config.ensembles | {"specfuse-split": split}})
    assert config.evaluation is not None
    texts = (q.question for q in read_questions(Path(config.evaluation.questions)))
    modes = {"one": ("specfuse", 1), "specfuse": ("specfuse", 16), "split": ("specfuse-split", 16)}
    answers, seconds = Counter[str](), Counter[str]()
    calls, messages = Counter[str](), Counter[str]()
    with serving(config, port=PORT) as url:
        warm_up = list(islice(texts, size.warm_up))
        for model in ("specfuse", "specfuse-split"):
            asyncio.run(load_test(url, model, warm_up, 16))
        with bar("zoo questions", 2 * len(modes)) as step:
            for mode, (model, at_once) in 2 * list(modes.items()):
                count = size.together if at_once > 1 else size.alone
                questions = list(islice(texts, count))  # nobody repeats any
                handle = serve.get_deployment_handle(ensemble_deployment(model), APP)
                before = handle.stats.remote().result()
                seconds[mode] += asyncio.run(load_test(url, model, questions, at_once))
                after = handle.stats.remote().result()
                answers[mode] += len(questions)
                calls[mode] += after["calls"] - before["calls"]
                messages[mode] += after["messages"] - before["messages"]
                step.done()
    rates = {mode: answers[mode] / seconds[mode] for mode in modes}
    per_message = {mode: calls[mode] / messages[mode] for mode in modes}
    return {
        "throughput_16_over_1": round(rates["specfuse"] / rates["one"], 2),
        "calls_per_message": round(per_message["specfuse"], 2),
        "calls_per_message_without_coalescing": round(per_message["split"], 2),
        "coalescing_speedup": round(rates["specfuse"] / rates["split"], 2),
    } | {f"answers_per_s_{name}": round(rate, 2) for name, rate in rates.items()}


async def load_test(url: str, model: str, questions: Sequence[str], at_once: int) -> float:
    """Seconds until all are answered."""
    gate = asyncio.Semaphore(at_once)
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=600, max_retries=0) as client:

        async def one(question: str) -> None:
            async with gate:
                await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": question}],
                    max_tokens=64,
                    seed=7,
                )

        started = time.perf_counter()
        await asyncio.gather(*map(one, questions))
        return time.perf_counter() - started


if __name__ == "__main__":
    main()

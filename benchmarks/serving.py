"""What benchmarks of served ensembles share: asking, and finding a coordinator's process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import psutil
from openai import AsyncOpenAI

from deployments.serving.names import ensemble_deployment


async def ask(
    url: str,
    model: str,
    questions: Sequence[str],
    *,
    at_once: int,
    done: Callable[[], None] = lambda: None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """For each question the answer's ``text`` and its whole ``ensemble`` object; ``fields`` are the
    request's own. ``done`` is called after each."""
    gate = asyncio.Semaphore(at_once)
    extra = {**fields.pop("extra_body", {}), "ensemble": {"trace": "full"}}
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=900, max_retries=0) as client:

        async def one(question: str) -> dict[str, Any]:
            async with gate:
                reply = await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": question}],
                    seed=7,
                    extra_body=extra,
                    **fields,
                )
            done()
            result: Any = (reply.model_extra or {})["ensemble"]
            return {"text": reply.choices[0].message.content or "", "ensemble": result}

        return await asyncio.gather(*map(one, questions))


def coordinator(model: str) -> psutil.Process:
    """The process of an ensemble's only coordinator."""
    title = f":{ensemble_deployment(model)}"
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or ()).split()
        if words and words[0].startswith("ray::ServeReplica") and words[0].endswith(title):
            found.append(process)
    assert len(found) == 1, f"{len(found)} processes look like the coordinator of {model}"
    return found[0]

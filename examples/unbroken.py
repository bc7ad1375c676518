"""One stream over as many connections as it takes: what the server's parts that die do not end.

python examples/unbroken.py "Explain in a few sentences why the sky is blue."
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

BROKEN = (APIConnectionError, httpx2.TransportError)
PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
QUESTION = "Explain in a few sentences why the sky is blue."


async def unbroken(
    client: AsyncOpenAI,
    patience_s: float = 120.0,
    on_break: Callable[[Exception | None], None] = lambda _: None,
    **request: Any,
) -> AsyncIterator[Any]:
    """Chunks of one answer (``n = 1``). A connection that breaks is made again, and the answer goes
    on where it was; the last fault is raised when the server was not heard of for ``patience_s``.

    ``on_break`` is called with the reason, each time: ``None`` for a stream that ended before its
    answer.
    """
    options: dict[str, Any] = {"resumable": True}
    loop = asyncio.get_running_loop()
    heard, failures = loop.time(), 0
    while True:
        fault: Exception | None = None
        try:
            extra = {"ensemble": options}
            stream = await client.chat.completions.create(stream=True, extra_body=extra, **request)
            heard = loop.time()
            async with stream:
                async for chunk in stream:
                    options = {"resume": chunk.model_extra["ensemble"]["resume"]}
                    heard, failures = loop.time(), 0
                    yield chunk
                    if chunk.choices[0].finish_reason is not None:
                        return
        except BROKEN as broken:
            fault = broken
        except APIStatusError as refused:
            if not _worth_repeating(refused):
                raise
            fault = refused
        on_break(fault)
        if loop.time() - heard > patience_s:
            raise fault or EOFError("the stream ends before the answer does")
        await asyncio.sleep(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
        failures += 1


def _worth_repeating(refused: APIStatusError) -> bool:
    """A server that is full or has lost a part; not one that says that asking again is no use."""
    if refused.response.headers.get("x-should-retry") == "false":
        return False
    return refused.status_code == 429 or refused.status_code >= 500


async def main(question: str = QUESTION, model: str = "specfuse") -> None:
    async with AsyncOpenAI(base_url="http://127.0.0.1:8000/v1", api_key="any") as client:
        messages = [{"role": "user", "content": question}]
        async for chunk in unbroken(client, model=model, messages=messages):
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

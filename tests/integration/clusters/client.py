"""Asks an endpoint, from wherever it is run: ``python -m tests.integration.clusters.client URL
MODEL``.

Prints one JSON list of what came. ``--writing FILE`` makes that file once the first words are
there; with ``--until FILE``, several clients ask again and again until that file is there.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
from openai import OpenAI, OpenAIError

CLIENTS = 3


def ask(client: OpenAI, model: str, writing: Path | None) -> dict[str, Any]:
    """One streamed answer, or the error that it ended with."""
    result: dict[str, Any] = {"text": "", "error": None, "finish": None, "members": {}}
    started = last = time.monotonic()
    request: Any = {"model": model, "messages": [{"role": "user", "content": "Count."}]}
    result["gap"] = 0.0
    try:
        for chunk in client.chat.completions.create(stream=True, **request):
            result["gap"] = max(result["gap"], time.monotonic() - last)
            last = time.monotonic()
            for choice in chunk.choices:
                result["text"] += choice.delta.content or ""
                if result["text"] and writing is not None:
                    writing.touch()
                if choice.finish_reason:
                    result["finish"] = choice.finish_reason
                    members = (chunk.model_extra or {})["ensemble"]["members"]
                    result["members"] = {member["model"]: member["status"] for member in members}
    except (OpenAIError, httpx2.HTTPError) as fault:
        result["error"] = repr(fault)
    return result | {"seconds": time.monotonic() - started}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--writing", type=Path)
    parser.add_argument("--until", type=Path)
    args = parser.parse_args()
    with OpenAI(base_url=args.url, api_key="none", max_retries=0, timeout=180) as client:

        def keep_asking(_: int) -> list[dict[str, Any]]:
            result = [ask(client, args.model, args.writing)]
            while args.until is not None and not args.until.exists():
                result.append(ask(client, args.model, args.writing))
            return result

        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = pool.map(keep_asking, range(1 if args.until is None else CLIENTS))
            print(json.dumps([result for one in answers for result in one]))


if __name__ == "__main__":
    main()

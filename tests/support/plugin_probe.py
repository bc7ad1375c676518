"""Run as a program, in a process that sees installed plugins: answers by a configuration file.

``python -m tests.support.plugin_probe FILE MODEL`` prints one JSON object, with ``error`` where the
file is refused.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from deployments.cli import app as cli
from deployments.config.serve_file import load
from deployments.launch.in_process import LocalStack
from runtime.errors import ConfigError
from tests.support.local_stack import ask


async def probe(file: Path, model: str) -> dict[str, Any]:
    try:
        _, config = load(file)
    except ConfigError as fault:
        return {"error": str(fault)}
    stack = LocalStack(config)
    try:
        answer = await ask(stack, model)
        return {"text": answer.text, "summary": answer.summary}
    finally:
        await stack.close()


if __name__ == "__main__":
    reply = asyncio.run(probe(Path(sys.argv[1]), sys.argv[2]))
    table = CliRunner().invoke(cli.app, ["methods"])
    print(json.dumps(reply | {"methods": table.output}))

"""A Serve config in one process: `python -m tests.docs.server CONFIG PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from deployments.config.serve_file import load
from deployments.launch.in_process import LocalStack


def main(config: str, port: str) -> None:
    stack = LocalStack(load(Path(config))[1])
    uvicorn.run(stack.api(), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Traces without texts: ``trace.store_text: false``."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from tests.deployments.http.auth.guarded_api import ANN, CHAT, bearer, keys_file
from tests.support.http.ensembles import (
    call,
)
from tests.support.local_stack import animals

QUESTION = "zebra-quagga-okapi?"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("method", ["sweetspan", "specfuse", "gac", "single", "fixed-route"])
async def test_without_text_in_traces_no_text_is_left_anywhere(
    method: str, stream: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trace = {"folder": str(tmp_path / "t"), "store_text": False}
    whole = animals(e={"type": method}) | {"trace": trace}
    if method == "single":
        whole["ensembles"]["e"]["members"] = ["cat"]
    access = {"keys_file": str(keys_file(tmp_path))}
    whole["gateway"] = {"access": access}
    stack = LocalStack(AppConfig.model_validate(whole))
    try:
        request = {"messages": [{"role": "user", "content": QUESTION}], "model": "e", "n": 2}
        request |= {"ensemble": {"trace": "full"}, "stream": stream, "temperature": 0}
        reply = await call(stack.api(), "POST", CHAT, request, bearer(ANN))
        assert b" sat" in reply.content or b" ran" in reply.content
        api = stack.api()
        reply = await call(api, "POST", CHAT, request, bearer(ANN))
        id = reply.headers["x-ensemble-trace-id"]
        shown = await call(api, "GET", f"/v1/traces/{id}", headers=bearer(ANN))
    finally:
        await stack.close()
    assert shown.status == 200 and shown.json()["ensemble"]["choices"][1]["spans"]
    rows = pq.read_table(tmp_path / "t").to_pylist()
    assert len(rows) == 4 and {row["caller"] for row in rows} == {"ann"}
    left = json.dumps(rows, default=str) + shown.content.decode() + caplog.text
    for word in ("zebra", " the cat", " the dog", " sat", " ran"):
        assert word not in left

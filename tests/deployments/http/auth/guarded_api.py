"""An endpoint with two keys, for the tests of access."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from deployments.http.answerer import Ensemble
from deployments.http.auth.keys import hash_of
from tests.support.http.ensembles import (
    Chorus,
    Reply,
    api_of,
)

CHAT = "/v1/chat/completions"
ANN, BOB = "key-of-ann-0123456789", "key-of-bob-0123456789"


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} | more


def keys_file(folder: Path, **ann: Any) -> Path:
    """Ann with limits, Bob without."""
    path = folder / "keys.yaml"
    known = [{"name": "ann", "sha256": hash_of(ANN)} | ann, {"name": "bob", "sha256": hash_of(BOB)}]
    path.write_text(json.dumps({"keys": known}))
    return path


def guarded(folder: Path, served: dict[str, Ensemble] | None = None, **ann: Any) -> FastAPI:
    access = {"keys_file": str(keys_file(folder, **ann))}
    return api_of({"m": Chorus()} if served is None else served, access=access)


def said(reply: Reply) -> tuple[int, str, str]:
    error = reply.json()["error"]
    return reply.status, error["type"], error["code"]

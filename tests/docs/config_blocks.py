"""Configurations in the documentation, whole or in part, read by what reads them in earnest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import promql_parser
import yaml

from deployments.config.app_config import AppConfig
from deployments.config.serve_file import IMPORT_PATH, ServeFile, load
from runtime.config.access import KeysFile
from tests.docs.blocks import Block

LEFT_OUT = "…"


def read_config(block: Block, folder: Path) -> None:
    """Fails where the block could not stand in a file."""
    if block.language == "promql":
        for query in block.text.split("\n\n"):
            lines = [line for line in query.splitlines() if not line.startswith("#")]
            promql_parser.parse("\n".join(lines))
        return
    assert block.language == "yaml", f"{block.place}: {block.language} is no configuration"
    document = yaml.safe_load(block.text)
    if block.read_as == "keys":
        KeysFile.model_validate(document)
        return
    assert isinstance(document, dict), f"{block.place} holds no mapping"
    if block.read_as == "yaml":
        return
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(whole(document), sort_keys=False))
    load(file)


def whole(shown: dict[str, Any]) -> dict[str, Any]:
    """A Serve config around what is shown of one: a file, an application or its ``args``."""
    if set(shown) <= set(ServeFile.model_fields):
        applications = shown.get("applications")
        if applications == LEFT_OUT:
            applications = [{}]
        return {
            **shown,
            "applications": [
                _application(one) if one.get("import_path", IMPORT_PATH) == IMPORT_PATH else one
                for one in applications or [{}]
            ],
        }
    return {"applications": [_application(shown if "args" in shown else {"args": shown})]}


def _application(shown: dict[str, Any]) -> dict[str, Any]:
    args = {
        key: {} if value == {LEFT_OUT: None} else value
        for key, value in (shown.get("args") or {}).items()
    }
    assert set(args) <= set(AppConfig.model_fields), f"unknown keys: {sorted(args)}"
    ensembles = args.get("ensembles", {}).values()
    named = [name for ensemble in ensembles for name in ensemble.get("members", ())]
    put_in = {name: {"engine": {"type": "echo"}} for name in (*named, "one")}
    args["members"] = put_in | args.get("members", {})
    return {"name": "shown", "import_path": IMPORT_PATH, **shown, "args": args}

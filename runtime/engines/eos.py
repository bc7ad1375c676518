"""Which tokens end a text, by a checkpoint's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.tokenizer_files import read_json


def eos_ids(folder: Path, config: Any) -> tuple[int, ...]:
    """From ``generation_config.json``, then from the model's (text) configuration; the tokenizer
    may know more."""
    found: list[int] = []
    file = folder / "generation_config.json"
    said = read_json(file)
    for ids in (said.get("eos_token_id"), getattr(config, "eos_token_id", None)):
        if ids is not None:
            found += [ids] if isinstance(ids, int) else ids
    return tuple(dict.fromkeys(found))

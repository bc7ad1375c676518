"""Which tokens end a text, by a checkpoint's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def eos_ids(folder: Path, config: Any) -> tuple[int, ...]:
    """From ``generation_config.json``, then from the model's (text) configuration; the tokenizer
    may know more."""
    found: list[int] = []
    file = folder / "generation_config.json"
    said = json.loads(file.read_text()) if file.is_file() else {}
    for ids in (said.get("eos_token_id"), getattr(config, "eos_token_id", None)):
        if ids is not None:
            found += [ids] if isinstance(ids, int) else ids
    return tuple(dict.fromkeys(found))

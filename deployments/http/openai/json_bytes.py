"""JSON out, as every client can read it."""

from __future__ import annotations

import json
import math
from typing import Any


def encode(value: Any) -> bytes:
    """UTF-8 JSON on one line.

    Text that cannot be UTF-8 (lone surrogates) stays readable as a JSON escape. The line
    separators that JSON leaves bare are escaped, since many clients split event streams there.
    Numbers that JSON lacks (NaN, infinities) become null.
    """
    try:
        text = _dumps(value)
    except ValueError:
        text = _dumps(_finite(value))
    for separator, escape in (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(separator, escape)
    return text.encode("utf-8", "backslashreplace")


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

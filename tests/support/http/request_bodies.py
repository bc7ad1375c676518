"""Request bodies, good and malformed, as bytes."""

from __future__ import annotations

import json
from typing import Any


def written(body: Any) -> bytes:
    """As clients write it that escape nothing but what they must: NaN and Infinity stand bare, a
    lone surrogate is an escape."""
    return json.dumps(body).encode()


GOOD = written({"model": "cat", "messages": [{"role": "user", "content": "Who?"}], "seed": 1})


BYTES = (
    b"\xff\xfe{\x00}\x00",
    b'{"messages":[{"role":"user","content":"\xed\xa0\x80"}]}',
    b'{"a":' * 5000,
    b'{"model":"cat","messages":[{"role":"user","content":"x"}],"temperature":1e400}',
    b'{"model":"cat","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    b'{"model":"cat","messages":[{"role":"user","content":"x"}],"seed":' + b"9" * 5000 + b"}",
    b'{"messages":[{"role":"user","content":"x"}],"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b"\x1f\x8b\x08\x00",
    b"messages=hello&model=cat",
    b'{"model":"' + b"m" * 500_000 + b'","messages":[{"role":"user","content":"x"}]}',
    b'{"messages":[' + b"1," * 500_000 + b"1]}",
    b'{"messages":[{"role":"user","content":"x"}],"ensemble":{"budget":{' + b'"a":1,' * 150_000
    + b'"a":1}}}',
    *(GOOD[:end] for end in range(0, len(GOOD), 7)),
)  # fmt: skip

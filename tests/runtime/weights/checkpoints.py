"""Checkpoint folders and wheels for tests."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zipfile
from pathlib import Path

from tests.support.models import tokenizers as small


def safetensors(values: tuple[float, ...] = (1.0, 2.0, 3.0)) -> bytes:
    data = struct.pack(f"<{len(values)}f", *values)
    tensor = {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)]}
    header = json.dumps({"weight": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + data


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def checkpoint_files(weights: bytes | None = None) -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "llama", "eos_token_id": 2}',
        "tokenizer.json": small.definitions()["gpt2"].json.encode(),
        "model.safetensors": safetensors() if weights is None else weights,
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def wheel(shelf: Path, name: str, files: dict[str, bytes], version: str = "1.0.0") -> Path:
    """A wheel on the shelf that pip accepts."""
    package, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    contents = {f"{package}/{path}": data for path, data in files.items()}
    contents[f"{package}/__init__.py"] = b"raise SystemExit('code of a wheel has run')"
    contents[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    )
    contents[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    lines = []
    for path, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}")
    contents[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"]).encode()
    shelf.mkdir(exist_ok=True)
    file = shelf / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            archive.writestr(path, data)
    return file

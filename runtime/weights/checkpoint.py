"""Checks that a folder is a complete checkpoint that is safe to load."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from runtime.errors import WeightsError

_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16}
_BITS |= {"I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8}
"""Bits for each dtype; newer dtypes are checked when they are loaded."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_PICKLED = (b"PK\3\4", b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")
"""First bytes of torch files: a zip archive of pickles, or in older versions a pickle."""

NO_CODE: Final[dict[str, Any]] = {"trust_remote_code": False, "local_files_only": True}
"""Options of transformers for reading configurations and tokenizers."""
SAFE: Final[dict[str, Any]] = {**NO_CODE, "use_safetensors": True}
"""Options of transformers for reading weights."""


def check_folder(folder: Path, weights: str) -> None:
    """Raises ``WeightsError`` unless ``folder`` has a config, whole safetensors and a tokenizer."""
    _check_config(folder / "config.json", weights)
    for file in weight_files(folder, weights):
        header(file, weights)
    if not (folder / "tokenizer.json").is_file():
        raise WeightsError(
            f"weights {weights!r}: no tokenizer in {folder} (tokenizer.json is missing); make a "
            "copy with transformers: AutoTokenizer.from_pretrained(it).save_pretrained(copy), "
            "put the weights into it and give that folder"
        )


def _check_config(file: Path, weights: str) -> None:
    if not file.is_file():
        raise WeightsError(
            f"weights {weights!r}: {file.parent} has no config.json; give the folder of a "
            "checkpoint that transformers can load"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as fault:
        raise WeightsError(
            f"weights {weights!r}: {file} is not JSON ({fault}); fetch it again"
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise WeightsError(
            f"weights {weights!r}: {file} has no model_type, such as llama; fetch it again, or "
            "choose a checkpoint that transformers can load"
        )


def weight_files(folder: Path, weights: str) -> list[Path]:
    """The safetensors files in order; pickle files, which can run code, are refused."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
            if not names or any(name != Path(name).name for name in names):
                raise ValueError("it must name files of the same folder")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
            raise WeightsError(
                f"weights {weights!r}: {index} cannot be read ({fault!r}); fetch it again"
            ) from None
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise WeightsError(
                f"weights {weights!r}: {folder} lacks {', '.join(missing)}; fetch it again"
            )
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    if any(next(folder.glob(pattern), None) for pattern in _PICKLES):
        raise WeightsError(
            f"weights {weights!r}: {folder} holds pickle weights only, which can run code when "
            "they are loaded; convert them to safetensors or choose a checkpoint that has them"
        )
    raise WeightsError(
        f"weights {weights!r}: {folder} holds no model.safetensors; choose a checkpoint that does"
    )


def check_hash(folder: Path, weights: str, sha256: str | None) -> None:
    """Raises ``WeightsError`` when the joined weight files do not have the pinned hash."""
    if sha256 is not None:
        compare_hash(hash_files(weight_files(folder, weights)), sha256, weights)


def compare_hash(got: str, expected: str, weights: str) -> None:
    """Raises ``WeightsError`` when the hashes differ."""
    if got != expected.strip().lower():
        raise WeightsError(
            f"weights {weights!r}: expected sha256 {expected}, got {got}; if the new file is the "
            "one you mean, put its hash into the config, otherwise do not use it"
        )


def hash_files(files: Iterable[Path]) -> str:
    """SHA-256 of the files joined in order, in hex."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def header(file: Path, weights: str) -> dict[str, Any]:
    """Each tensor's dtype, shape and data offsets in a safetensors file.

    Raises ``WeightsError`` for a damaged or truncated file.
    """
    # A safetensors file begins with the length of its JSON header, which gives the data size.
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size:
                raise ValueError("its header is cut off")
            tensors: dict[str, Any] = json.loads(stream.read(length))
        tensors.pop("__metadata__", None)
        expected = 8 + length + max((t["data_offsets"][1] for t in tensors.values()), default=0)
        if size != expected:
            raise ValueError(f"it has {size} bytes where its header says {expected}")
        for name, tensor in tensors.items():
            _check_tensor(name, **tensor)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        with file.open("rb") as stream:
            if stream.read(4).startswith(_PICKLED):
                raise WeightsError(
                    f"weights {weights!r}: {file} is called safetensors and is a pickle, which can "
                    "run code when it is loaded; do not use it"
                ) from None
        raise WeightsError(
            f"weights {weights!r}: {file} is damaged or cut short ({fault}); fetch it again"
        ) from None
    return tensors


def _check_tensor(name: str, dtype: str, shape: list[int], data_offsets: list[int]) -> None:
    first, last = data_offsets
    if first < 0 or any(length < 0 for length in shape):
        raise ValueError(f"tensor {name!r} has a negative length")
    if not isinstance(dtype, str):
        raise ValueError(f"tensor {name!r} has no dtype")
    bits = _BITS.get(dtype)
    if bits is not None and math.prod(shape) * bits != (last - first) * 8:
        raise ValueError(f"tensor {name!r} has {last - first} bytes, not those of its shape")


def without_code(fault: Exception) -> str:
    """transformers' error message, without its advice to trust the checkpoint's code."""
    if "trust_remote_code" not in str(fault):
        return str(fault)
    return (
        "its architecture or its tokenizer is code that comes with the weights, which is never "
        "run; choose a model that transformers knows by itself"
    )

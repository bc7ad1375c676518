"""Reads the tokenizer files of a checkpoint folder, and derives its two ``tokenizer.json``
forms."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as LibraryTokenizer

from runtime.errors import WeightsError
from runtime.tokenization import chat_template

_UNGUESSABLE = f"\U0010fffe{secrets.token_hex(16)}"


def read_folder(path: Path) -> dict[str, Any]:
    """The fields of a ``TokenizerDefinition``. Raises ``WeightsError``."""
    path = Path(path)
    library = _library_tokenizer(path / "tokenizer.json")
    config = read_json(path / "tokenizer_config.json")
    specials = read_json(path / "special_tokens_map.json")
    bos, eos = (
        _text(config.get(key)) or _text(specials.get(key)) for key in ("bos_token", "eos_token")
    )
    eos_ids = _eos_ids(path)
    written = None if eos is None else library.token_to_id(eos)
    if written is not None and written not in eos_ids:
        eos_ids = (*eos_ids, written)
    if not eos_ids:
        raise WeightsError(
            f"{path} defines no EOS token; set eos_token_id in its generation_config.json"
        )
    add_bos = config.get("add_bos_token")
    if add_bos is None:
        first = library.encode("x").tokens[:1]
        add_bos = bos is not None and first == [bos]
    return {
        "json": write_document(bare_document(json.loads(library.to_str()))),
        "chat_template": _chat_template(path, config),
        "bos": bos,
        "eos": eos if eos is not None else library.id_to_token(eos_ids[0]),
        "eos_ids": eos_ids,
        "add_bos": bool(add_bos) and bos is not None,
    }


def bare_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer for prompts: no post-processing, truncation, padding or dropout."""
    bare = {**document, "post_processor": None, "truncation": None, "padding": None}
    if document["model"].get("dropout") is not None:
        bare["model"] = {**document["model"], "dropout": None}
    return bare


def continuation_document(bare: Mapping[str, Any], special_ids: frozenset[int]) -> dict[str, Any]:
    """The tokenizer for continuations of a text.

    It adds no space before the first word, and marks every control token as special, so that
    ``encode_special_tokens`` reads its spelled-out text as plain text.
    """
    document, renamed = dict(bare), {}
    document["normalizer"] = _unprefixed(bare.get("normalizer"))
    document["pre_tokenizer"] = _unprefixed(bare.get("pre_tokenizer"))
    model = bare["model"]
    if model["type"] == "Unigram":
        # Its search matches any piece that the text spells, control tokens included, so these
        # are renamed to random spellings.
        known = {token["id"] for token in bare["added_tokens"]}
        renamed = {i: f"{_UNGUESSABLE}{i}" for i in special_ids & known if i < len(model["vocab"])}
        vocabulary = [[renamed.get(i, piece), n] for i, (piece, n) in enumerate(model["vocab"])]
        document["model"] = {**model, "vocab": vocabulary}
    document["added_tokens"] = [
        {
            **token,
            "content": renamed.get(token["id"], token["content"]),
            "special": token["id"] in special_ids,
        }
        for token in bare["added_tokens"]
    ]
    return document


def write_document(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _unprefixed(node: Any) -> Any:
    """A normalizer or pre-tokenizer that adds nothing before the text."""
    if node is None or node["type"] == "Prepend":
        return None
    if node["type"] == "Sequence":
        key = "normalizers" if "normalizers" in node else "pretokenizers"
        kept = [child for child in map(_unprefixed, node[key]) if child is not None]
        return {**node, key: kept} if kept else None
    if node["type"] == "Metaspace":
        return {**node, "prepend_scheme": "never"}
    if node["type"] == "ByteLevel":
        return {**node, "add_prefix_space": False}
    return node


def _library_tokenizer(file: Path) -> LibraryTokenizer:
    if not file.is_file():
        raise WeightsError(
            f"{file.parent} has no tokenizer.json; write one with transformers: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    try:
        return LibraryTokenizer.from_file(str(file))
    except Exception as fault:  # the library raises nothing narrower
        raise WeightsError(
            f"{file} cannot be read ({fault}); fetch the checkpoint again or write the file with "
            "the installed version of the tokenizers library"
        ) from None


def check_tokenizer(folder: Path) -> None:
    """Raises ``WeightsError`` unless the tokenizer's files can be read."""
    _library_tokenizer(folder / "tokenizer.json")
    read_json(folder / "tokenizer_config.json")
    read_json(folder / "special_tokens_map.json")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file, an empty one without the file. Raises ``WeightsError``."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as fault:
        raise WeightsError(f"{file} is not JSON ({fault}); fetch the checkpoint again") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{file} holds no JSON object; fetch the checkpoint again")
    return content


def _eos_ids(path: Path) -> tuple[int, ...]:
    model = read_json(path / "config.json")
    nested = model.get("text_config")
    found: dict[int, None] = {}
    for source in (
        read_json(path / "generation_config.json"),
        model,
        nested if isinstance(nested, dict) else {},
    ):
        value = source.get("eos_token_id")
        ids = value if isinstance(value, list) else [value]
        found.update(dict.fromkeys(i for i in ids if isinstance(i, int)))
    return tuple(found)


def _chat_template(path: Path, config: Mapping[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        try:
            return _compilable(file.read_text(encoding="utf-8"), file)
        except UnicodeDecodeError as fault:
            raise WeightsError(f"{file} is not UTF-8 ({fault}); fetch it again") from None
    template = config.get("chat_template") or read_json(path / "chat_template.json").get(
        "chat_template"
    )
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, dict)]
        named = {str(entry.get("name")): entry.get("template") for entry in entries}
        template = named.get("default", next(iter(named.values()), None))
    if template is not None and not isinstance(template, str):
        raise WeightsError(
            f"the chat template in {path} is no text; correct chat_template in its "
            "tokenizer_config.json"
        )
    return _compilable(template, path) if template else None


def _compilable(template: str, place: Path) -> str:
    """Checks a template at load time, not at the first request. Raises ``WeightsError``."""
    try:
        chat_template.check(template)
    except WeightsError as fault:
        raise WeightsError(f"{place}: {fault}") from None
    return template


def _text(token: Any) -> str | None:
    """The text of a special token, which older files store as an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def eos_ids(folder: Path, config: Any) -> tuple[int, ...]:
    """EOS ids of ``generation_config.json``, then of the model's (text) configuration. The
    tokenizer may add more."""
    found: list[int] = []
    file = folder / "generation_config.json"
    generation_config = read_json(file)
    for ids in (generation_config.get("eos_token_id"), getattr(config, "eos_token_id", None)):
        if ids is not None:
            found += [ids] if isinstance(ids, int) else ids
    return tuple(dict.fromkeys(found))

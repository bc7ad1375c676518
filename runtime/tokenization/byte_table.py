"""The exact bytes of every id of a ``tokenizer.json``, byte-level or SentencePiece."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from runtime.errors import WeightsError

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_table(
    document: Mapping[str, Any], control_texts: Iterable[str | None], control_ids: Iterable[int]
) -> tuple[list[bytes], frozenset[int]]:
    """The bytes of each id, and the ids of control tokens, which have no bytes.

    Byte-level vocabularies (GPT-2, Llama 3, Qwen) write each byte as one printable character;
    SentencePiece ones (Llama 2, Gemma, T5) write "▁" for a space and <0xNN> for a lone byte.
    """
    pieces = dict(_pieces(document))
    added = {token["id"]: token for token in document.get("added_tokens") or ()}
    texts = set(control_texts)
    controls = {i for i, token in added.items() if token["special"] or token["content"] in texts}
    controls |= {i for i in pieces if pieces[i] in texts} | set(control_ids) | _unknown(document)
    controls -= {i for i in controls if i not in added and _BYTE_PIECE.fullmatch(pieces.get(i, ""))}

    byte_level = _has_type(document, "ByteLevel")
    space = _space_mark(document)
    table = [b""] * (1 + max([-1, *pieces, *added, *controls]))
    for i, piece in pieces.items():
        if byte_level:
            table[i] = _unmap(piece)
        elif match := _BYTE_PIECE.fullmatch(piece):
            table[i] = bytes([int(match[1], 16)])
        else:
            table[i] = (piece.replace(space, " ") if space else piece).encode()
    for i, token in added.items():
        text = token["content"]
        table[i] = (text.replace(space, " ") if space and not byte_level else text).encode()
    for i in controls:
        table[i] = b""
    return table, frozenset(controls)


def walk(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every typed component of a ``tokenizer.json`` section, sequences flattened."""
    if isinstance(node, Mapping):
        if "type" in node:
            yield node
        for key in ("normalizers", "pretokenizers", "decoders"):
            for child in node.get(key) or ():
                yield from walk(child)


def _pieces(document: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    model = document["model"]
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise WeightsError(
            f"{model.get('type')} vocabularies that mark word borders (BERT, CLIP) are not "
            "supported; use a model with a byte-level or SentencePiece tokenizer"
        )
    vocabulary = model["vocab"]
    if isinstance(vocabulary, Mapping):
        for piece, i in vocabulary.items():
            yield i, piece
    else:
        for i, (piece, _score) in enumerate(vocabulary):
            yield i, piece


def _unknown(document: Mapping[str, Any]) -> set[int]:
    model = document["model"]
    if model.get("unk_id") is not None:
        return {model["unk_id"]}
    text = model.get("unk_token")
    return {model["vocab"][text]} if text is not None and text in model["vocab"] else set()


def _has_type(document: Mapping[str, Any], kind: str) -> bool:
    parts = (document.get("decoder"), document.get("pre_tokenizer"))
    return any(component["type"] == kind for part in parts for component in walk(part))


def _space_mark(document: Mapping[str, Any]) -> str | None:
    """The character that stands for a space in this vocabulary, if not the space itself."""
    for section in ("decoder", "pre_tokenizer", "normalizer"):
        for component in walk(document.get(section)):
            if component["type"] == "Metaspace":
                return str(component.get("replacement", "▁"))
            if component["type"] == "Replace":
                pattern = component["pattern"].get("String")
                ends = (pattern, component["content"])
                if section == "decoder" and ends[1] == " " and pattern:
                    return str(pattern)
                if section == "normalizer" and ends[0] == " " and len(ends[1]) == 1:
                    return str(ends[1])
    return None


@cache
def _byte_of_char() -> dict[str, int]:
    # GPT-2: printable Latin-1 bytes stand for themselves, the other 68 are moved to U+0100 and up.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(moved)}


def _unmap(piece: str) -> bytes:
    table = _byte_of_char()
    return b"".join(bytes([table[char]]) if char in table else char.encode() for char in piece)

"""Validation errors with file, line, key and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from runtime.config.plugins import OneOf, type_of
from runtime.errors import ConfigError


def nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


M = TypeVar("M", bound=BaseModel)


def validated(
    model: type[M], value: Any, path: Path, node: yaml.Node, where: Sequence[str | int] = ()
) -> M:
    """A part of a document as the model. Raises ``ConfigError`` that names file, line, key and
    remedy."""
    try:
        return model.model_validate(value)
    except ValidationError as invalid:
        raise ConfigError(explain(path, node, where, invalid, model)) from None


def explain(
    path: Path, node: yaml.Node, where: Sequence[str | int], invalid: ValidationError, root: Any
) -> str:
    """One line for each mistake: file:line: key: what is wrong, and the nearest valid key."""
    lines = []
    for error in invalid.errors():
        loc = [*where, *error["loc"]]
        line, known = _line(node, loc)
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = f"unknown key{_valid_keys(root, error['loc'])}"
        elif error["type"] == "missing":
            message = f"the key {loc[-1]} is missing"
        elif error["loc"][-1:] == ("[key]",):
            message = "a name must be text; put it into quotes"
        elif error["type"] == "union_tag_invalid":
            context = error.get("ctx", {})
            message = f"unknown type {context.get('tag')!r}; known: {context.get('expected_tags')}"
        elif error["type"] == "union_tag_not_found":
            message = f"needs a key type, one of: {_tags(root, error['loc'])}"
        key = ".".join(str(part) for part in known) or "document"
        lines.append(f"{path}:{line}: {key}: {message}")
    return "\n".join(lines)


def _line(node: yaml.Node, loc: Sequence[str | int]) -> tuple[int, list[str | int]]:
    """Line (from 1) of the deepest node on the way to ``loc``, and that way."""
    line, known = node.start_mark.line + 1, []
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next((kv for kv in node.value if kv[0].value == str(part)), None)
            if found is None:
                continue  # pydantic names union branches; the document does not
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
        known.append(part)
    return line, known


def _valid_keys(root: Any, loc: Sequence[str | int]) -> str:
    """The nearest key that the refused one may have meant."""
    model = _model_at(root, loc[:-1])
    known = getattr(model, "known_keys", None)
    fields = known() if known else list(getattr(model, "model_fields", {}))
    return nearest(str(loc[-1]), fields) if fields else ""


def _tags(root: Any, loc: Sequence[str | int]) -> str:
    """The types that a union knows."""
    return ", ".join(str(type_of(branch)) for branch in _branches(_model_at(root, loc)))


def _model_at(root: Any, loc: Sequence[str | int]) -> Any:
    model: Any = root
    for part in loc:
        model = _bare(_descend(model, part))
    return model


def _bare(model: Any) -> Any:
    """Without ``Annotated``; an open union is represented by its ``OneOf``."""
    while get_origin(model) is Annotated:
        inner, *metadata = get_args(model)
        model = next((one for one in metadata if isinstance(one, OneOf)), inner)
    return model


def _branches(model: Any) -> Sequence[Any]:
    return list(model.branches()) if isinstance(model, OneOf) else get_args(model)


def _descend(model: Any, part: str | int) -> Any:
    """The model one step further on a path of field names, dict keys and union tags."""
    if hasattr(model, "model_fields"):
        field = model.model_fields.get(str(part))
        if field is None:
            return None
        return next((one for one in field.metadata if isinstance(one, OneOf)), field.annotation)
    if get_origin(model) is dict:
        return get_args(model)[1]
    for branch in _branches(model):
        if hasattr(branch, "model_fields") and type_of(branch) == part:
            return branch
    return None

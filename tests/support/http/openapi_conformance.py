"""Real replies held against the OpenAPI document that the endpoint itself hands out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import BaseModel
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from deployments.http.openai.openapi import document
from tests.support.http.ensembles import Reply

BASE = "urn:openapi"
DOCUMENT = document()
REGISTRY: Registry[Any] = Registry().with_resource(
    BASE, Resource(contents=DOCUMENT, specification=DRAFT202012)
)


@cache
def _validator(pointer: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"{BASE}#{pointer}"}, registry=REGISTRY)


def operation(method: str, path: str) -> tuple[str, dict[str, Any]]:
    """The JSON pointer and the description of what answers a request."""
    for template, methods in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", ".+", template), path) and method.lower() in methods:
            escaped = template.replace("~", "~0").replace("/", "~1")
            return f"/paths/{escaped}/{method.lower()}", methods[method.lower()]
    raise AssertionError(f"{method} {path} is not in the document")


def conforms(method: str, path: str, reply: Reply) -> None:
    """Raises unless status, headers and body are as documented."""
    at, result = operation(method, path)
    status = str(reply.status)
    assert status in result["responses"], f"{method} {path} answered {status}: {reply.content!r}"
    response = result["responses"][status]
    assert reply.headers["x-request-id"]
    content: Mapping[str, Any] = response.get("content", {})
    kind = reply.headers.get("content-type", "").split(";")[0]
    if not content:
        return
    assert kind in content, f"{kind} is not documented for {status}"
    place = f"{at}/responses/{status}/content/{kind.replace('/', '~1')}"
    if kind == "text/event-stream":
        for event in events(reply.content):
            _validator(f"{place}/x-event").validate(event)
    else:
        _validator(f"{place}/schema").validate(json.loads(reply.content))


def events(content: bytes) -> list[Any]:
    """A well-formed stream's events: the last one is [DONE] or an error."""
    blocks = content.split(b"\n\n")
    assert blocks.pop() == b"", "the last event is cut off"
    data = [block for block in blocks if not block.startswith(b":")]
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in data)
    ended = data[-1] == b"data: [DONE]"
    result = [json.loads(block[6:]) for block in (data[:-1] if ended else data)]
    assert ended or "error" in result[-1]
    return result


def fits(path: str, body: Any) -> bool:
    """Whether a request's body is as the document describes it."""
    at, _ = operation("POST", path)
    form = _validator(f"{at}/requestBody/content/application~1json/schema")
    return bool(form.is_valid(body))


def assert_no_extras(model: Any) -> None:
    if isinstance(model, BaseModel):
        assert not model.model_extra, f"{type(model).__name__}: {model.model_extra}"
        for name in type(model).model_fields:
            assert_no_extras(getattr(model, name))
    elif isinstance(model, list):
        for item in model:
            assert_no_extras(item)

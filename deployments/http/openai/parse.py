"""From the bytes of a body to a request model, or to the error that names the first wrong field."""

from __future__ import annotations

import re
from typing import Final, TypeVar

from pydantic import ValidationError

from deployments.http.openai.requests import OpenAIRequest
from runtime.errors import BadRequest

RequestT = TypeVar("RequestT", bound=OpenAIRequest)

OWN_CODES: Final = frozenset({"unsupported_content", "unsupported_parameter", "invalid_type"})
_ESCAPES = re.compile(
    r"(?<!\\)(?P<before>(?:\\\\)*+)"  # backslashes that are escaped themselves
    r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair: one character
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)


def parse(form: type[RequestT], body: bytes) -> RequestT:
    """Validates a request body (JSON in UTF-8) as ``form``.

    Escaped lone surrogates become U+FFFD, since tokenizers refuse them. Raises ``BadRequest`` that
    names the first invalid field.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8", code="invalid_json") from None
    text = _ESCAPES.sub(_without_lone, text)
    try:
        return form.model_validate_json(text)
    except ValidationError as invalid:
        raise _bad_request(invalid) from None


def _without_lone(match: re.Match[str]) -> str:
    return match["before"] + "\\ufffd" if match["lone"] else match[0]


def _bad_request(invalid: ValidationError) -> BadRequest:
    errors = invalid.errors(include_url=False, include_input=False)
    first = errors[0]
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not JSON: {first['msg']}", code="invalid_json")
    if first["type"] == "model_type" and not first["loc"]:
        return BadRequest("the body is not a JSON object", code="invalid_json")
    param = _path(first["loc"]) or first.get("ctx", {}).get("param")
    if "key" in first.get("ctx", {}):
        param = f"{param}.{first['ctx']['key']}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    code = first["type"] if first["type"] in OWN_CODES else "invalid_value"
    if first["type"] == "missing":
        code = "missing_required_parameter"
    return BadRequest(f"{param}: {first['msg']}{more}" if param else first["msg"], param, code)


def _path(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")

"""Renders a checkpoint's chat template like transformers, but without importing it.

Templates come with downloaded weights and run in jinja2's immutable sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.errors import BadRequest, WeightsError
from runtime.types.query import Message


class _Generation(Extension):
    """``{% generation %}`` marks assistant text for training; here its body is plain text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render_chat(
    template: str, messages: Sequence[Message], bos: str | None, eos: str | None
) -> str:
    """The prompt text for ``messages``, up to the start of the assistant's answer.

    For a template that rejects the system role, the system text is put before the first user
    message. Raises ``BadRequest`` with the template's message when it rejects the conversation,
    ``WeightsError`` when the template is invalid.
    """
    try:
        return _render(template, messages, bos, eos)
    except TemplateError as fault:
        refusal = fault
    if any(message.role == "system" for message in messages):
        try:
            return _render(template, fold_system(messages), bos, eos)
        except TemplateError:
            pass
    raise BadRequest(f"the chat template refuses these messages: {refusal}", param="messages")


def check(template: str) -> None:
    """Raises ``WeightsError`` for an invalid template."""
    _compiled(template)


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """The conversation with all system texts moved to the start of the first user message."""
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    turns = [m for m in messages if m.role != "system"]
    for i, turn in enumerate(turns):
        if turn.role == "user":
            turns[i] = Message("user", f"{system}\n\n{turn.content}")
            return turns
    return [Message("user", system), *turns]


def plain_chat(messages: Sequence[Message]) -> str:
    """The prompt text for models without a template.

    System texts have no prefix; other turns begin with ``User:``, ``Assistant:`` or their role's
    name. Turns are separated by line breaks; the text ends with ``Assistant:``.
    """
    lines = [
        m.content if m.role == "system" else f"{m.role.capitalize()}: {m.content}" for m in messages
    ]
    return "\n".join([*lines, "Assistant:"])


def _render(template: str, messages: Sequence[Message], bos: str | None, eos: str | None) -> str:
    return _compiled(template).render(
        messages=[{"role": m.role, "content": m.content} for m in messages],
        add_generation_prompt=True,
        tools=None,
        documents=None,
        bos_token=bos or "",
        eos_token=eos or "",
    )


@lru_cache(maxsize=64)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(template)
    except TemplateError as fault:
        raise WeightsError(
            f"the checkpoint's chat template cannot be read ({fault}); correct its "
            "chat_template.jinja, or remove it to use plain 'User: … Assistant:' prompts"
        ) from None


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **rest: Any) -> str:
    # jinja2's own filter escapes HTML characters, unlike the prompts of training.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **rest)

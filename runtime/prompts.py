"""What a member is asked: a request's conversation or text in that member's own tokens."""

from __future__ import annotations

from dataclasses import replace

from runtime.connection import Connection
from runtime.errors import BadRequest, ContextOverflow
from runtime.types import Query


def prompt_ids(query: Query, connection: Connection, ids_of: str) -> list[int]:
    """The member's tokens of a request whose own ids, if it has any, are those of ``ids_of``.
    Raises ``ContextOverflow``."""
    tokenizer = connection.tokenizer
    if query.prompt_ids is not None and connection.name == ids_of:
        prompt = list(query.prompt_ids)
    elif query.prompt is not None:
        prompt = tokenizer.encode_prompt(query.prompt)
    else:
        prompt = tokenizer.chat(query.messages)
    limit = connection.spec.context_length
    if len(prompt) + (query.max_tokens != 0) > limit:
        raise ContextOverflow(connection.name, len(prompt), limit)
    return prompt


def question_of(query: Query) -> str:
    """What the caller asks, without the turns before it."""
    asked = [message.content for message in query.messages if message.role == "user"]
    return query.prompt or (asked[-1] if asked else "")


def asking(query: Query, question: str) -> Query:
    """The request with another question in the place of the caller's. Raises ``BadRequest`` where
    the caller asks none."""
    if query.prompt is not None or query.prompt_ids is not None:
        return replace(query, prompt=question, prompt_ids=None)
    places = [i for i, turn in enumerate(query.messages) if turn.role == "user"]
    if not places:
        raise BadRequest("this method needs a turn of the user to answer", "messages")
    turns = list(query.messages)
    turns[places[-1]] = replace(turns[places[-1]], content=question)
    return replace(query, messages=tuple(turns))

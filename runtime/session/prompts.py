"""A member's prompt: a request's conversation or text in that member's own tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from runtime.errors import BadRequest, ContextOverflow
from runtime.session.connection import Connection
from runtime.types.query import Query

LONG: Final = 16
"""Characters for each token of a window, beyond which a text is tried by its beginning first."""
SLACK: Final = 64
"""Tokens that the end of a beginning may take more than it takes in the whole text."""


def prompt_ids(query: Query, connection: Connection, ids_member: str) -> list[int]:
    """The member's tokens of a request whose own ids, if it has any, are those of ``ids_member``.
    Raises ``ContextOverflow``."""
    if query.prompt_ids is not None and connection.name == ids_member:
        prompt = list(query.prompt_ids)
    elif query.prompt is not None:
        prompt = _read(query.prompt, connection)
    else:
        prompt = _read(connection.tokenizer.chat_text(query.messages), connection)
    limit = connection.spec.context_length
    if len(prompt) + (query.max_tokens != 0) > limit:
        raise ContextOverflow(connection.name, len(prompt), limit)
    return prompt


def _read(text: str, connection: Connection) -> list[int]:
    """The text's tokens. One far beyond the window is refused by its beginning: tokenising
    megabytes takes seconds, during which this process serves no other request."""
    limit = connection.spec.context_length
    cut = LONG * limit
    while cut < len(text):
        begun = len(connection.tokenizer.encode_prompt(text[:cut]))
        if begun > limit + SLACK:
            raise ContextOverflow(connection.name, begun - SLACK, limit, True)
        cut *= 4
    return connection.tokenizer.encode_prompt(text)


def question_of(query: Query) -> str:
    """The caller's question, without the turns before it."""
    questions = [message.content for message in query.messages if message.role == "user"]
    return query.prompt or (questions[-1] if questions else "")


def with_question(query: Query, question: str) -> Query:
    """The request with another question in the place of the caller's. Raises ``BadRequest`` where
    no turn is the user's."""
    if query.prompt is not None or query.prompt_ids is not None:
        return replace(query, prompt=question, prompt_ids=None)
    places = [i for i, turn in enumerate(query.messages) if turn.role == "user"]
    if not places:
        raise BadRequest("this method needs a turn of the user to answer", "messages")
    turns = list(query.messages)
    turns[places[-1]] = replace(turns[places[-1]], content=question)
    return replace(query, messages=tuple(turns))

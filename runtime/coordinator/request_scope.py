"""Runs an answer's work in the coordinator under its request ids and its tracing span."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack

from runtime.call_context import RequestIds, request_context
from runtime.observability.tracing import Facts, begin, broke_off, within
from runtime.types.events import Event
from runtime.types.query import Query


async def in_request_scope(
    query: Query, facts: Facts, events: AsyncGenerator[Event, None]
) -> AsyncGenerator[Event, None]:
    """The events, each step of the work inside the query's own activity.

    A generator runs in the context of the caller of ``anext``, so context variables that it set
    would leak there; hence each step sets and resets them.
    """
    operation = "chat" if query.prompt is None else "text_completion"
    attributes: Facts = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "orchestrion",
        "gen_ai.request.model": query.model,
        "gen_ai.request.max_tokens": query.max_tokens,
        "gen_ai.request.temperature": query.temperature,
        "gen_ai.request.top_p": query.top_p,
        "gen_ai.request.seed": query.seed,
        "orchestrion.ensemble": query.model,
        "orchestrion.trace_id": query.id,
        "orchestrion.request_id": query.request_id or None,
    }
    name = f"{operation} {query.model}"
    activity = begin(name, {**attributes, **facts}, parent=query.traceparent)
    request = RequestIds(query.request_id, query.id)
    error: str | None = None

    def inside() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(within(activity))
        stack.enter_context(request_context(request))
        return stack

    try:
        while True:
            with inside():
                event = await anext(events, None)
            if event is None:
                return
            yield event
    except BaseException as fault:
        error = broke_off(fault)
        raise
    finally:
        with inside():
            await events.aclose()
        activity.end(error)

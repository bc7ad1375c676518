"""A streamed reply: each accepted span is sent at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from deployments.http.answerer import Ensemble
from deployments.http.errors import fault_of
from deployments.http.openai.exchange import Exchange
from deployments.http.openai.formats import Form, choice, head
from deployments.http.openai.logprobs import PlacedToken
from deployments.http.openai.resume import Sent
from deployments.http.openai.transcript import Transcript
from deployments.http.streaming import sse
from deployments.http.streaming.merge import arrivals
from deployments.http.trace_store import LocalTraceStore
from runtime.errors import OrchestrionError
from runtime.types.events import Ended, Event, Recalled, Scored, Searched, Written

log = logging.getLogger(__name__)


async def events(
    form: Form, exchange: Exchange, ensemble: Ensemble, traces: LocalTraceStore, keep_alive_s: float
) -> AsyncGenerator[bytes, None]:
    """Server-sent events of one reply.

    Nothing is yielded before the first text, the first fault or ``keep_alive_s`` seconds without
    events, so a fault up to then propagates. A later fault becomes an error event, the last one.
    """
    chunks = Chunks(form, exchange)
    transcript = Transcript(exchange)
    clock = asyncio.get_running_loop().time
    begun = open = False
    last_sent = clock()
    """When a chunk was last sent: a resuming client already has much of what arrives."""
    try:
        async with aclosing(arrivals(ensemble, exchange.queries, keep_alive_s)) as arriving:
            async for arrival in arriving:
                chunks_to_send: list[bytes] = []
                if not begun:
                    begun = True
                    chunks_to_send += chunks.opening(transcript)
                if arrival is not None:
                    transcript.add(*arrival)
                    chunks_to_send += chunks.of(*arrival, transcript)
                if not chunks_to_send and (arrival is None or clock() - last_sent >= keep_alive_s):
                    chunks_to_send = [sse.KEEP_ALIVE]
                for chunk in chunks_to_send:
                    open = True
                    yield chunk
                    last_sent = clock()
    except Exception as fault:  # sent to the client, whose reply has begun; a bug is also logged
        error = fault_of(fault).body()
        traces.record(transcript.trace(error))
        if not open:
            raise
        if not isinstance(fault, OrchestrionError):
            log.exception("answer %s failed", exchange.trace_id)
        yield sse.event(error)
        return
    traces.record(transcript.trace())
    if exchange.include_usage:
        yield chunks.usage(transcript)
    yield sse.DONE


class Chunks:
    """Events of the OpenAI stream."""

    def __init__(self, form: Form, exchange: Exchange) -> None:
        self._form = form
        self._exchange = exchange
        self._head = head(form, exchange, form.chunk)
        self._tail = {"usage": None} if exchange.include_usage else {}
        first = exchange.queries[0]
        self._sent = Sent(exchange.trace_id, first.seed, len(exchange.queries), exchange.marks)

    def opening(self, transcript: Transcript) -> Iterator[bytes]:
        opening = self._form.opening()
        for index, query in enumerate(self._exchange.queries):
            if opening is not None and self._sent.untouched(index):
                yield self._chunk(choice(index, opening, None))
            if self._exchange.echo and not query.score_prompt:
                prompt = self._sent.fresh(index, transcript.prompt(index))
                if prompt or not self._sent.resumed:
                    yield self._chunk(choice(index, self._form.piece(prompt), None))

    def of(self, index: int, event: Event, transcript: Transcript) -> Iterator[bytes]:
        match event:
            case Scored():
                prompt = self._sent.fresh(index, transcript.prompt(index))
                tokens = self._new_tokens(index, transcript)
                if prompt or tokens or not self._sent.resumed:
                    scored = choice(index, self._form.piece(prompt), None, self._logprobs(tokens))
                    yield self._chunk(scored)
            case Searched(progress=progress):
                yield sse.comment(f"progress {progress.done}/{progress.total}")
                if self._exchange.trace == "full":
                    far = {"done": progress.done, "total": progress.total, **progress.found}
                    silent = choice(index, self._form.piece(""), None)
                    yield self._chunk(silent, {"progress": far})
            case Written(text="", span=_):
                return
            case Written(text=text) | Recalled(text=text):
                text, tokens = self._sent.fresh(index, text), self._new_tokens(index, transcript)
                if not text and not tokens:
                    return
                written = choice(index, self._form.piece(text), None, self._logprobs(tokens))
                yield self._chunk(written, self._origin(event))
            case Ended(finish_reason=reason):
                self._sent.check_end(index)
                tokens = self._new_tokens(index, transcript) or None
                ended = choice(index, self._form.closing(), reason, self._logprobs(tokens))
                yield self._chunk(ended, transcript.choice_summary(index))

    def _new_tokens(self, index: int, transcript: Transcript) -> Sequence[PlacedToken] | None:
        """Tokens that no chunk has sent and that the client has not received before."""
        tokens = transcript.new_tokens(index)
        return None if tokens is None else self._sent.fresh_tokens(index, tokens)

    def usage(self, transcript: Transcript) -> bytes:
        return sse.event({**self._head, "choices": [], "usage": transcript.usage()})

    def _logprobs(self, tokens: Sequence[PlacedToken] | None) -> dict[str, Any] | None:
        return None if tokens is None else self._form.logprobs(tokens)

    def _origin(self, event: Written | Recalled) -> dict[str, Any] | None:
        span = event.span if isinstance(event, Written) else None
        if span is None:
            return None
        origin: dict[str, Any] = {"model": span.author, "span": span.step}
        if self._exchange.trace == "full":
            origin["scores"] = dict(span.scores)
            if span.weights is not None:
                origin["weights"] = dict(span.weights)
        return origin

    def _chunk(self, choice: dict[str, Any], ensemble: dict[str, Any] | None = None) -> bytes:
        chunk = {**self._head, "choices": [choice], **self._tail}
        fields = {} if ensemble is None or self._exchange.trace == "none" else ensemble
        if self._exchange.resumable and (id := self._sent.id) is not None:
            fields = {**fields, "resume": id}
        return sse.event({**chunk, "ensemble": fields} if fields else chunk)

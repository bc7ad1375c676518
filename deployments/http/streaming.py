"""A reply as it is written: each accepted span goes out at once."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from deployments.http import sse
from deployments.http.arrivals import arrivals
from deployments.http.ensemble import Ensemble
from deployments.http.errors import fault_of
from deployments.http.exchange import Exchange
from deployments.http.logprobs import Told
from deployments.http.openai_reply import Form, choice, head
from deployments.http.traces import OwnTraces
from deployments.http.transcript import Transcript
from runtime.errors import OrchestrionError
from runtime.types import Ended, Event, Scored, Searched, Written

log = logging.getLogger(__name__)


async def events(
    form: Form, exchange: Exchange, ensemble: Ensemble, traces: OwnTraces, keep_alive_s: float
) -> AsyncGenerator[bytes, None]:
    """Server-sent events of one reply.

    Nothing is yielded before the first word, the first fault or ``keep_alive_s`` of silence, so a
    fault up to there propagates. Later faults become an error event, the last one.
    """
    chunks = Chunks(form, exchange)
    transcript = Transcript(exchange)
    open = False
    try:
        async with aclosing(arrivals(ensemble, exchange.queries, keep_alive_s)) as arriving:
            async for arrival in arriving:
                if not open:
                    open = True
                    for chunk in chunks.opening(transcript):
                        yield chunk
                if arrival is None:
                    yield sse.KEEP_ALIVE
                    continue
                transcript.add(*arrival)
                for chunk in chunks.of(*arrival, transcript):
                    yield chunk
    except Exception as fault:  # told to the client, whose reply has begun; a bug also to the log
        told = fault_of(fault).body()
        traces.record(transcript.trace(told))
        if not open:
            raise
        if not isinstance(fault, OrchestrionError):
            log.exception("answer %s failed", exchange.trace_id)
        yield sse.event(told)
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

    def opening(self, transcript: Transcript) -> Iterator[bytes]:
        opening = self._form.opening()
        for index, query in enumerate(self._exchange.queries):
            if opening is not None:
                yield self._chunk(choice(index, opening, None))
            if self._exchange.echo and not query.score_prompt:
                yield self._chunk(choice(index, self._form.piece(transcript.prompt(index)), None))

    def of(self, index: int, event: Event, transcript: Transcript) -> Iterator[bytes]:
        match event:
            case Scored():
                prompt, told = self._form.piece(transcript.prompt(index)), transcript.fresh(index)
                yield self._chunk(choice(index, prompt, None, self._logprobs(told)))
            case Searched(progress=progress):
                yield sse.comment(f"progress {progress.done}/{progress.total}")
                if self._exchange.trace == "full":
                    far = {"done": progress.done, "total": progress.total, **progress.found}
                    silent = choice(index, self._form.piece(""), None)
                    yield self._chunk(silent, {"progress": far})
            case Written(text="", span=_):
                return
            case Written(text=text):
                piece, told = self._form.piece(text), transcript.fresh(index)
                written = choice(index, piece, None, self._logprobs(told))
                yield self._chunk(written, self._origin(event))
            case Ended(finish_reason=reason):
                told = transcript.fresh(index) or None
                ended = choice(index, self._form.closing(), reason, self._logprobs(told))
                yield self._chunk(ended, transcript.choice_summary(index))

    def usage(self, transcript: Transcript) -> bytes:
        return sse.event({**self._head, "choices": [], "usage": transcript.usage()})

    def _logprobs(self, told: Sequence[Told] | None) -> dict[str, Any] | None:
        return None if told is None else self._form.logprobs(told)

    def _origin(self, event: Written) -> dict[str, Any] | None:
        span = event.span
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
        if ensemble is not None and self._exchange.trace != "none":
            chunk["ensemble"] = ensemble
        return sse.event(chunk)

"""Runs one policy for many requests at once; a request's state is never stored on ``self``."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar, Literal, Protocol, cast

from runtime.calls.remote_engine import RemoteEngine
from runtime.config.ensembles import PolicyConfig
from runtime.coordinator.checkpoint_store import RETENTION_S, CheckpointStore
from runtime.coordinator.request_scope import in_request_scope
from runtime.coordinator.summary import summarise
from runtime.coordinator.trace_log import TraceLog
from runtime.errors import (
    BadRequest,
    BudgetSpent,
    ContextOverflow,
    EngineFault,
    OrchestrionError,
)
from runtime.observability.metrics import Counts, Meter
from runtime.observability.recorder import AnswerRecorder
from runtime.observability.tracing import Facts
from runtime.session.aux_models import ALONE, AuxModels
from runtime.session.connection import Connection
from runtime.session.session import Session
from runtime.text.stop_strings import safe_length
from runtime.types.events import (
    Checkpoint,
    Ended,
    Event,
    Recalled,
    Scored,
    Searched,
    StopReason,
    Written,
)
from runtime.types.query import Query
from runtime.types.spans import Progress, Span, TokenChoice


class Policy(Protocol):
    """What the coordinator needs of a method; ``policies.base.Policy`` is the base to build on."""

    level: ClassVar[str]
    tells_logprobs: ClassVar[bool]
    can_score: ClassVar[bool]
    no_logprobs_reason: ClassVar[str]
    config: PolicyConfig

    def check(self, connections: Mapping[str, Connection]) -> None: ...

    async def warm(self, connections: Mapping[str, Connection]) -> None: ...

    def answer(self, session: Session) -> AsyncGenerator[Span | Progress, None]: ...

    async def score(self, session: Session) -> list[TokenChoice]: ...


class Coordinator:
    """One ensemble."""

    def __init__(
        self,
        name: str,
        policy: Policy,
        connections: Mapping[str, Connection],
        traces: TraceLog,
        *,
        kind: Literal["ensemble", "member"] = "ensemble",
        currency: str = "USD",
        meter: Meter | None = None,
        aux_models: AuxModels = ALONE,
    ) -> None:
        self.name = name
        self.policy = policy
        self.config = policy.config
        self.kind = kind
        self._connections = {member: connections[member] for member in self.config.members}
        self._aux_models = aux_models
        self._traces = traces
        self._currency = currency
        self._report = AnswerRecorder(name, Counts() if meter is None else meter)
        self._recent = CheckpointStore()
        self._warming: asyncio.Future[Any] | None = None
        """The policy's warm-up, once it was started."""

    def answer(
        self, query: Query, checkpoint: Checkpoint | None = None
    ) -> AsyncGenerator[Event, None]:
        """Yields the prompt's tokens if the query requests them, text as it is accepted, then
        ``Ended``. Resumes from ``checkpoint`` if given; a query with ``again`` resumes from this
        coordinator's own checkpoint, whose text is yielded first.

        Raises typed errors; closing the iterator cancels the members' open calls.
        """
        known = None
        if query.again and checkpoint is None and not query.score_prompt:
            checkpoint = known = self._recent.recall(query)
        facts: Facts = {
            "orchestrion.method": self.config.method,
            "orchestrion.resumed": checkpoint is not None,
        }
        return in_request_scope(query, facts, self._answer(query, checkpoint, known))

    async def _answer(
        self, query: Query, checkpoint: Checkpoint | None, known: Checkpoint | None
    ) -> AsyncGenerator[Event, None]:
        """``known``: the checkpoint, if it is this coordinator's own and not the caller's."""
        self._check(query)
        session = Session(
            query, self.config, self._connections, self._report, checkpoint, self._aux_models
        )
        if checkpoint is not None and known is None:  # for a client that reconnects at once
            self._recent.note(query, replace(checkpoint, spans=()), session.spans)
        stop_reason: str = "error"
        error: str | None = "an unexpected fault; see the log"
        outcome = "fault"
        shown, complete, waiting = session.shown, False, not session.ledger.begun
        tokens_before = session.completion_tokens if known is not None else 0
        self._report.begun()
        try:
            try:
                if known is not None:
                    yield Recalled(known.text[:shown], known)
                await session.open()
                self.policy.check({n: member.connection for n, member in session.live.items()})
                if known is not None:  # in the present reporter's tokens
                    tokens_before = session.completion_tokens
                if query.score_prompt and checkpoint is None:
                    tokens = await self._score(session)
                    yield Scored(tokens, session.checkpoint())
                if query.max_tokens == 0:
                    session.ending = "length"
                else:
                    async with aclosing(self.policy.answer(session)) as spans:
                        async for span in spans:
                            if isinstance(span, Progress):
                                yield Searched(span, self._noted(session))
                                continue
                            self._report.accepted(span.author)
                            if waiting:
                                self._report.waited(session.ledger.elapsed)
                                waiting = False
                            session.shown = max(shown, _showable(session))
                            text, shown = session.text[shown : session.shown], session.shown
                            yield Written(text, span, self._noted(session))
            except BudgetSpent as spent:
                session.ending = cast(StopReason, f"budget_{spent.which}")
            except ContextOverflow:
                if not session.ledger.begun:
                    raise
                session.ending = "context"
            session.ending = session.ending or "eos"
            outcome = stop_reason = session.ending
            error = None
            if shown < len(session.text):
                session.shown = len(session.text)
                yield Written(session.text[shown:], None, self._noted(session))
            complete = True
            yield self._end(session, session.ending)
        except OrchestrionError as fault:
            stop_reason, error = "error", str(fault)
            outcome = type(fault).__name__
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if not complete:
                outcome = stop_reason = "cancelled"
                error = None
            raise
        finally:
            self._report.ended(
                outcome,
                max(session.completion_tokens - tokens_before, 0),
                session.ledger.elapsed,
                prompt_tokens=session.prompt_tokens,
                cost=session.ledger.spent().cost,
                degraded=bool(session.dropped),
            )
            self._traces.add(session, stop_reason, error)
            self._recent.settle(query)
            asyncio.get_running_loop().call_later(RETENTION_S + 1, self._recent.purge)

    def _noted(self, session: Session) -> Checkpoint:
        """The checkpoint, stored for a repeated request."""
        checkpoint = session.checkpoint()
        self._recent.note(session.query, checkpoint, session.spans)
        return checkpoint

    @property
    def _scores(self) -> bool:
        return self.policy.tells_logprobs and self.policy.can_score

    async def _score(self, session: Session) -> tuple[TokenChoice, ...]:
        try:
            return tuple(await self.policy.score(session))
        except BudgetSpent as spent:
            raise BadRequest(f"the prompt has no score: {spent}", "ensemble.budget") from spent

    def _check(self, query: Query) -> None:
        unknown = [m for m in query.members or () if m not in self.config.members]
        if unknown:
            raise BadRequest(
                f"{self.name} has no member {unknown[0]!r}; its members are "
                f"{', '.join(self.config.members)}",
                "ensemble.members",
            )
        if query.members is not None and not query.members:
            raise BadRequest("ensemble.members is empty; name at least one", "ensemble.members")

    def _end(self, session: Session, stop_reason: StopReason) -> Ended:
        return Ended(
            finish_reason="stop" if stop_reason in ("eos", "stop") else "length",
            stop_reason=stop_reason,
            prompt_tokens=session.prompt_tokens,
            completion_tokens=session.completion_tokens,
            summary=summarise(
                session,
                level=self.policy.level,
                stop_reason=stop_reason,
                currency=self._currency,
            ),
        )

    async def card(self) -> dict[str, Any]:
        """The ensemble's entry of /v1/models. Raises ``EngineFault`` while its quorum is not up."""
        connections = self._connections.values()
        described = await asyncio.gather(
            *(c.describe() for c in connections), return_exceptions=True
        )
        up = [spec for spec in described if not isinstance(spec, BaseException)]
        for fault in described:
            known = isinstance(fault, EngineFault)
            if isinstance(fault, BaseException) and not (known and len(up) >= self.config.quorum):
                raise fault
        if self.kind == "ensemble" and self._warming is None:
            self._warming = asyncio.gather(self._warm(), return_exceptions=True)
        reporter = self.config.reporting_member or self.config.members[0]
        return {
            "method": self.config.method,
            "level": self.policy.level,
            "kind": self.kind,
            "members": list(self.config.members),
            "supports": {
                "stream": True,
                "n": True,
                "logprobs": self.policy.tells_logprobs,
                "echo": self.policy.can_score,
                "threshold": self.config.takes_threshold,
                "tools": False,
            },
            "scoreless": None if self._scores else self.policy.no_logprobs_reason,
            "max_model_len": min(spec.context_length for spec in up),
            "tokenizer": reporter,
            "fingerprint": hashlib.sha256(self.config.model_dump_json().encode()).hexdigest()[:12],
        }

    async def _warm(self) -> None:
        await asyncio.gather(*(connection.open() for connection in self._connections.values()))
        self.policy.check(self._connections)
        await self.policy.warm(self._connections)

    async def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids of the reporting member; for prompts given as ids."""
        connection = self._connections[self.config.reporting_member or self.config.members[0]]
        await connection.open()
        size = connection.spec.vocab_size
        if any(not 0 <= token < size for token in ids):
            raise BadRequest(
                f"a token id is outside the vocabulary of {connection.name!r} (0 to {size - 1})",
                "prompt",
            )
        return connection.tokenizer.decode(ids)

    def close(self) -> None:
        """Writes what the trace log still holds."""
        self._traces.flush()

    def stats(self) -> dict[str, int]:
        """Calls made and messages they travelled in, since the start."""
        engines = [c.engine for c in self._connections.values()]
        remote = [engine for engine in engines if isinstance(engine, RemoteEngine)]
        return {
            "calls": sum(engine.calls_sent for engine in remote),
            "messages": sum(engine.messages_sent for engine in remote),
        }


def _showable(session: Session) -> int:
    """How much of the text may be shown: all of it once the answer has ended."""
    if session.ending is not None:
        return len(session.text)
    return safe_length(session.text, session.stops)

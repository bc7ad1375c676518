"""The part of a session that every request has, whatever the level of the method."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from runtime.call_context import CallContext, use_call_context
from runtime.calls.ledger import Ledger
from runtime.calls.retries import with_retries
from runtime.concurrency import gather_or_cancel
from runtime.config.ensembles import PolicyConfig
from runtime.config.members import MemberConfig
from runtime.encoders.client import Encoder
from runtime.errors import MemberFailed, QuorumLost
from runtime.observability.recorder import AnswerRecorder
from runtime.rewards.client import Judge
from runtime.session.aux_models import ALONE, AuxModels
from runtime.session.prompts import question_of
from runtime.types.events import Checkpoint, Dropped, StopReason
from runtime.types.query import Query
from runtime.types.spans import Span


class Connectable(Protocol):
    """A connection to one model that all sessions share."""

    @property
    def config(self) -> MemberConfig: ...

    async def open(self) -> None:
        """Makes the model ready for calls; cheap when it is. Raises ``EngineFault``."""
        ...


A = TypeVar("A")
T = TypeVar("T")
C = TypeVar("C", bound=Connectable)
M = TypeVar("M")


class RequestSession(Generic[C, M]):
    """Members, quorum, ledger, deadline, state and checkpoint of one request.

    ``C`` is a connection and ``M`` a member as the policy sees it in this session: ``bind`` makes
    one from an open connection and the session's ledger. Nothing here reads or writes tokens, so
    methods that combine whole answers can use this class by itself. ``open`` must be awaited first.
    """

    def __init__(
        self,
        query: Query,
        config: PolicyConfig,
        connections: Mapping[str, C],
        report: AnswerRecorder,
        bind: Callable[[C, Ledger], M],
        checkpoint: Checkpoint | None = None,
        aux_models: AuxModels = ALONE,
    ) -> None:
        past = checkpoint or Checkpoint()
        self.query = query
        self.config = config
        self.names = query.members or config.members
        """Members of this request, in the ensemble's order."""
        self.ledger = Ledger(
            CallContext(query.id, query.priority),
            config.budget.budget().narrow(query.budget),
            report,
            dict.fromkeys((*self.names, *aux_models.names, *filter(None, (config.encoder_name,)))),
            past,
            query.left,
        )
        self.judge = None if aux_models.judge is None else Judge(aux_models.judge, self.ledger)
        """The reward model, for methods configured with one."""
        self.encoder = (
            None if aux_models.encoder is None else Encoder(aux_models.encoder, self.ledger)
        )
        """The text encoder under ``encoders``, for methods configured with one."""
        self.live: dict[str, M] = {}
        """Members that have not been dropped, in the ensemble's order."""
        self.dropped: dict[str, Dropped] = dict(past.dropped)
        self.state: dict[str, Any] = copy.deepcopy(dict(past.state))
        """The policy's own state; JSON values only, so that another coordinator can resume."""
        self.decision: dict[str, Any] = {}
        """The method's choice of members, for every answer's metadata."""
        self.text = past.text
        """The accepted text."""
        self.shown = past.shown
        """Characters of the text that the client has received; set by the coordinator."""
        self.spans: list[Span] = list(past.spans)
        self.step = past.step
        """Spans accepted so far, those before a checkpoint included."""
        self.ending: StopReason | None = past.ending
        """Why the answer ended; a policy returns once this is set."""
        self.warnings: list[str] = list(past.warnings)
        self.prompt_tokens = past.prompt_tokens
        self._completion_tokens = past.completion_tokens
        self._reporter = past.reporter or config.reporting_member
        self._connections = connections
        self._bind = bind
        self._report = report

    @property
    def question(self) -> str:
        """The caller's question, without the turns before it."""
        return question_of(self.query)

    @property
    def completion_tokens(self) -> int:
        """Tokens of the accepted text."""
        return self._completion_tokens

    async def open(self) -> None:
        """Connects to the members. Those that are unavailable are dropped, or waited for where an
        answer that has begun needs them for its quorum. Raises ``QuorumLost``."""
        names = [name for name in self.names if name not in self.dropped]
        members = await self._gather(self._connect, names)
        self.live = {
            name: member for name, member in members.items() if not isinstance(member, MemberFailed)
        }
        if unavailable := self._indispensable(members):
            with use_call_context(replace(self.ledger.call_context, wait_for_replica=True)):
                members |= await self._gather(self._connect, unavailable)
        self._keep(members, into=self.live)
        # The ensemble's order, whichever member connected first.
        self.live = {name: self.live[name] for name in self.names if name in self.live}

    async def each(
        self, call: Callable[[M], Awaitable[T]], members: Iterable[str] | None = None
    ) -> dict[str, T]:
        """Calls members at the same time; one that fails is dropped and missing in the result.

        ``members`` are the names of those to call; absent: all that are live. Raises
        ``QuorumLost`` when too few members are left, ``BudgetSpent`` at a limit.
        """
        wanted = None if members is None else set(members)
        names = [name for name in self.live if wanted is None or name in wanted]
        replies = await self._gather(lambda name: call(self.live[name]), names)
        if unavailable := self._indispensable(replies):
            self.ledger.indispensable = True
            replies |= await self._gather(lambda name: call(self.live[name]), unavailable)
        results: dict[str, T] = {}
        self._keep(replies, into=results)
        return results

    async def encode(self, text: str) -> np.ndarray:
        """The text's vector, float32 ``[size]``, by the ensemble's encoder. Raises
        ``MemberFailed``."""
        if self.encoder is None:
            raise RuntimeError(f"{self.config.type} is configured with no encoder")
        return await self.encoder.encode(text)

    def append(self, author: str, text: str, ending: StopReason | None = None) -> Span:
        """Accepts text as it is, for methods that pass on or combine whole answers."""
        self.text += text
        span = Span(text=text, author=author, step=self.step, final=ending == "eos")
        return self._accept(span, ending)

    def checkpoint(self) -> Checkpoint:
        """What another coordinator needs to resume this answer."""
        return Checkpoint(
            text=self.text,
            step=self.step,
            state=copy.deepcopy(self.state),
            dropped=dict(self.dropped),
            usage=dict(self.ledger.usage),
            elapsed=self.ledger.elapsed,
            ending=self.ending,
            reporter=self._reporter,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            warnings=tuple(self.warnings),
            before=self.ledger.before,
            shown=self.shown,
        )

    def _accept(self, span: Span, ending: StopReason | None) -> Span:
        """Records a span whose text is part of ``self.text``."""
        self.spans.append(span)
        self.step += 1
        self.ledger.begun = True
        self.ending = ending
        return span

    async def _connect(self, name: str) -> M:
        """Opens a connection within its timeout and retries. Raises ``MemberFailed``."""
        connection = self._connections[name]
        await with_retries(connection.config, name, self.ledger, connection.open)
        return self._bind(connection, self.ledger)

    async def _gather(
        self, call: Callable[[str], Awaitable[T]], names: Sequence[str]
    ) -> dict[str, T | MemberFailed]:
        results = await gather_or_cancel(*(failure_or(call, name) for name in names))
        return dict(zip(names, results, strict=True))

    def _indispensable(self, results: Mapping[str, object]) -> list[str]:
        """Unavailable members without which the quorum is lost, if any member has worked for this
        answer: the session waits for them. An answer that has not begun is refused instead."""
        failed = {name: it for name, it in results.items() if isinstance(it, MemberFailed)}
        enough = len(self.live.keys() - failed.keys()) >= self._quorum
        if enough or not self.ledger.working:
            return []
        return [name for name, fault in failed.items() if fault.unavailable]

    def _keep(self, results: Mapping[str, T | MemberFailed], into: dict[str, T]) -> None:
        """Puts results into ``into``, drops the members that failed, and checks the quorum."""
        for name, result in results.items():
            if isinstance(result, MemberFailed):
                self._drop(name, result.reason)
            else:
                into[name] = result
        self._check_quorum()

    def _drop(self, name: str, reason: str) -> None:
        self.live.pop(name, None)
        self.dropped[name] = Dropped(self.step, reason)
        self._report.dropped(name, self.step, reason)

    def _check_quorum(self) -> None:
        self.ledger.indispensable = len(self.live) <= self._quorum
        if len(self.live) < self._quorum:
            states = {
                name: self.dropped[name].reason if name in self.dropped else "ok"
                for name in self.names
            }
            raise QuorumLost(self._quorum, states)

    @property
    def _quorum(self) -> int:
        return max(min(self.config.quorum, len(self.names)), 1)


async def failure_or(call: Callable[[A], Awaitable[T]], argument: A) -> T | MemberFailed:
    """The call's result, or the failure of its member as a value."""
    try:
        return await call(argument)
    except MemberFailed as failed:
        return failed

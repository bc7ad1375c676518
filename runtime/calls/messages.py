"""Engine calls as data, so that one message can carry many of them to a member."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from runtime.call_context import CallContext, use_call_context
from runtime.engines.base import Engine
from runtime.errors import EngineFault, OrchestrionError
from runtime.observability.tracing import Facts, traced_activity
from runtime.types.outputs import Generation, Score
from runtime.types.sampling import Sampling

logger = logging.getLogger(__name__)

Verb = Literal["generate", "score", "next_token", "embed", "states", "vectors"]


_OPERATIONS: Final = {"generate": "text_completion", "embed": "embeddings"}
"""``gen_ai.operation.name`` of OpenTelemetry's semantic conventions, for verbs that have one."""


@dataclass(frozen=True, slots=True)
class Call:
    """One engine call: the verb and its positional arguments."""

    id: str
    verb: Verb
    args: tuple[Any, ...]
    call_context: CallContext = CallContext()

    @property
    def lane(self) -> str:
        """Calls of one lane take about the same time and may share a message."""
        if self.verb != "generate":
            return self.verb
        sampling = next(arg for arg in self.args if isinstance(arg, Sampling))
        return f"generate-{sampling.max_tokens.bit_length()}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a call: a value, or the typed error that the engine raised."""

    value: Any = None
    error: OrchestrionError | None = None

    def result(self) -> Any:
        """The value; raises the error instead if there is one."""
        if self.error is not None:
            raise self.error
        return self.value


class CallRunner:
    """Receiver of messages: runs all calls of a message on an engine concurrently."""

    def __init__(self, engine: Engine, member: str = "") -> None:
        self.engine = engine
        self._member = member
        self._running: dict[str, asyncio.Task[Any]] = {}

    @property
    def running(self) -> int:
        """Number of running calls."""
        return len(self._running)

    async def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """Outcomes in the order of the calls. Cancelling this cancels them all."""
        tasks = []
        for call in calls:
            task = asyncio.ensure_future(self._run_call(call))
            self._running[call.id] = task
            tasks.append(task)
        try:
            await asyncio.wait(tasks)
        finally:
            for call, task in zip(calls, tasks, strict=True):
                del self._running[call.id]
                task.cancel()
        return [_outcome(call, task) for call, task in zip(calls, tasks, strict=True)]

    async def _run_call(self, call: Call) -> Any:
        call_context = call.call_context
        facts: Facts = {
            "gen_ai.operation.name": _OPERATIONS.get(call.verb),
            "gen_ai.provider.name": "orchestrion",
            "gen_ai.request.model": self._member,
            "orchestrion.member": self._member,
            "orchestrion.verb": call.verb,
            "orchestrion.attempt": call_context.attempt,
            "orchestrion.trace_id": call_context.request,
        }
        name = f"{call.verb} {self._member}"
        with (
            use_call_context(call_context),
            traced_activity(name, facts, parent=call_context.traceparent) as activity,
        ):
            try:
                async with asyncio.timeout(call_context.seconds) as limit:
                    result = await getattr(self.engine, call.verb)(*call.args)
            except TimeoutError:
                if not limit.expired():  # raised by the engine itself
                    raise
                reason = f"not done within the caller's timeout of {call_context.seconds:g} s"
                raise EngineFault(reason) from None
            activity.note(_usage(call, result))
            return result

    def abort(self, ids: Sequence[str]) -> None:
        """Cancels calls whose caller has left."""
        for id_ in ids:
            if id_ in self._running:
                self._running[id_].cancel()


def _usage(call: Call, result: Any) -> Facts:
    """Token usage of a call as span attributes, as far as the result holds it."""
    match result:
        case Generation():
            return {
                "gen_ai.usage.input_tokens": len(call.args[0]),
                "gen_ai.usage.cache_read.input_tokens": result.cached_tokens,
                "gen_ai.usage.output_tokens": len(result.tokens),
                "gen_ai.response.finish_reasons": [result.finish],
            }
        case [Score(), *_]:
            prompt, continuations = call.args[:2]
            return {
                "gen_ai.usage.input_tokens": len(prompt) + sum(map(len, continuations)),
                "gen_ai.usage.cache_read.input_tokens": max(one.cached_tokens for one in result),
            }
    return {}


def _outcome(call: Call, task: asyncio.Task[Any]) -> Outcome:
    if task.cancelled():  # by its caller, who ignores the result, or by the engine
        return Outcome(error=EngineFault("the engine call was cancelled"))
    fault = task.exception()
    if fault is None:
        return Outcome(task.result())
    if isinstance(fault, OrchestrionError):
        return Outcome(error=fault)
    logger.error(
        "an engine call failed",
        exc_info=fault,
        extra={"trace_id": call.call_context.request},
    )
    return Outcome(error=EngineFault(repr(fault)))  # other calls of the message continue

"""One validated request: the queries to answer, and what its reply needs."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from deployments.http.openai.requests import ChatRequest, CompletionRequest, OpenAIRequest
from deployments.http.openai.resume import PARAM, Mark, ResumePoint
from deployments.http.openai.unsupported import check_logprobs, ignored_params
from runtime.call_context import current_request
from runtime.errors import BadRequest
from runtime.observability.tracing import current_activity
from runtime.types.query import Budget, Message, Query

MAX_CHOICES: Final = 128
"""Most choices of one request, over all its prompts."""
SEEDS: Final = 2**63


@dataclass(frozen=True, slots=True)
class Exchange:
    """A validated request."""

    model: str
    card: Mapping[str, Any]
    queries: tuple[Query, ...]
    """Choice ``index`` answers ``queries[index]``; prompt ``i`` has choices ``i*n`` to
    ``i*n + n - 1``."""
    n: int
    trace: Literal["none", "summary", "full"]
    ignored: tuple[str, ...]
    stream: bool
    include_usage: bool
    echo: bool
    """Whether the reply text begins with the prompt."""
    started: float
    """Arrival of the request, in seconds of ``time.monotonic``."""
    marks: tuple[Mark, ...] = ()
    """How much of each choice a resuming client has received before."""
    resumable: bool = False
    """Whether chunks carry a resume id."""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def trace_id(self) -> str:
        return self.queries[0].id

    def headers(self) -> dict[str, str]:
        """Reply headers that are known before the first token."""
        members = self.queries[0].members or self.card["members"]
        return {
            "x-ensemble-trace-id": self.trace_id,
            "x-ensemble-method": _ascii(str(self.card["method"])),
            "x-ensemble-model": _ascii(",".join(members)),
        }


def chat_exchange(
    request: ChatRequest,
    model: str,
    card: Mapping[str, Any],
    max_n: int,
    started: float,
    resume_from: ResumePoint | None = None,
) -> Exchange:
    messages = tuple(
        Message("system" if turn.role == "developer" else turn.role, turn.content)
        for turn in request.messages
    )
    return _exchange(request, model, card, max_n, started, [{"messages": messages}], resume_from)


def completion_exchange(
    request: CompletionRequest,
    prompts: Sequence[tuple[str, tuple[int, ...] | None]],
    model: str,
    card: Mapping[str, Any],
    max_n: int,
    started: float,
    resume_from: ResumePoint | None = None,
) -> Exchange:
    """``prompts``: each of ``request.prompt`` as text, with its token ids if it was sent as ids."""
    score = bool(request.echo) and request.logprobs is not None
    inputs = [{"prompt": text, "prompt_ids": ids, "score_prompt": score} for text, ids in prompts]
    return _exchange(request, model, card, max_n, started, inputs, resume_from, bool(request.echo))


def _exchange(
    request: OpenAIRequest,
    model: str,
    card: Mapping[str, Any],
    max_n: int,
    started: float,
    inputs: Sequence[Mapping[str, Any]],
    resume_from: ResumePoint | None,
    echo: bool = False,
) -> Exchange:
    n = request.n or 1
    check_choices(n, max_n, len(inputs))
    stream = bool(request.stream)
    _check_support(card, model, n, stream, request.options.threshold is not None)
    check_logprobs(request, card)
    if resume_from is not None and resume_from.marks and not stream:
        raise BadRequest(f"{PARAM} belongs to a stream; send stream: true", PARAM)
    ignored = ignored_params(request, n)
    trace = request.options.trace or "summary"
    first = secrets.randbelow(2**31) if resume_from is None else resume_from.seed
    seed = first if request.seed is None else request.seed
    common = Query(
        id=uuid.uuid4().hex if resume_from is None else resume_from.trace_id,
        model=model,
        max_tokens=request.limit,
        temperature=request.temperature,
        top_p=request.top_p,
        stop=request.stop,
        ignore_eos=bool(request.ignore_eos),
        priority=request.priority or 0,
        members=_subset(request.options.members, card),
        budget=request.options.budget.budget() if request.options.budget else Budget(),
        trace=trace,
        logprobs=request.alternatives,
        threshold=request.options.threshold,
        again=resume_from is not None,
        request_id=current_request().request_id,
        traceparent=current_activity().traceparent,
    )
    queries: list[Query] = []
    for input_fields in inputs:
        for choice in range(n):
            index = len(queries)
            id = common.id if index == 0 else f"{common.id}-{index}"
            queries.append(replace(common, id=id, seed=(seed + choice) % SEEDS, **input_fields))
    include_usage = bool(request.stream_options and request.stream_options.include_usage)
    return Exchange(
        model=model,
        card=card,
        queries=tuple(queries),
        n=n,
        trace=trace,
        ignored=ignored,
        stream=stream,
        include_usage=include_usage,
        echo=echo,
        started=started,
        marks=resume_from.marks if resume_from else (),
        resumable=bool(request.options.resumable) or request.options.resume is not None,
    )


def check_choices(n: int, max_n: int, prompts: int) -> None:
    """Raises ``BadRequest`` for more choices than one request may have."""
    if n > max_n:
        raise BadRequest(f"n: this server returns at most {max_n} choices, not {n}", "n")
    if n * prompts > MAX_CHOICES:
        raise BadRequest(
            f"{prompts} prompts with n = {n} are more than {MAX_CHOICES} choices; send fewer",
            "prompt",
        )


def _check_support(
    card: Mapping[str, Any], model: str, n: int, stream: bool, threshold: bool
) -> None:
    supports = card.get("supports", {})
    requested = (("n", n > 1), ("stream", stream), ("threshold", threshold))
    for name, wanted in requested:
        if wanted and not supports.get(name, True):
            raise BadRequest(
                f"model {model!r} does not support {name}", name, "unsupported_parameter"
            )


def _subset(wanted: list[str] | None, card: Mapping[str, Any]) -> tuple[str, ...] | None:
    if wanted is None:
        return None
    members = card["members"]
    unknown = [name for name in wanted if name not in members]
    if unknown:
        raise BadRequest(
            f"ensemble.members: {', '.join(unknown)} not among the members {', '.join(members)}",
            "ensemble.members",
        )
    if len(set(wanted)) < len(wanted):
        raise BadRequest("ensemble.members names one member twice", "ensemble.members")
    return tuple(name for name in members if name in wanted)


def _ascii(text: str) -> str:
    """Header values are ASCII."""
    return text.encode("ascii", "replace").decode("ascii")

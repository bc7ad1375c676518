"""One request as understood: the queries to answer, and all that its reply needs to know."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from deployments.http.openai.requests import Asked, ChatRequest, CompletionRequest
from deployments.http.openai.resume import PARAM, Mark, Past
from deployments.http.openai.unsupported import check_logprobs, ignored_params
from runtime.call_context import current_request
from runtime.errors import BadRequest
from runtime.observability.tracing import current_activity
from runtime.types.query import Budget, Message, Query

MAX_CHOICES: Final = 128
"""Most choices of one request, batched prompts included."""
SEEDS: Final = 2**63


@dataclass(frozen=True, slots=True)
class Exchange:
    """Made when the request has been checked."""

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
    """The prompt stands before the text."""
    started: float
    """Monotonic moment at which the request came."""
    marks: tuple[Mark, ...] = ()
    """What a reader whose connection broke has of each choice."""
    resumable: bool = False
    """Chunks say what to come back with."""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def trace_id(self) -> str:
        return self.queries[0].id

    def headers(self) -> dict[str, str]:
        """Facts known before the first word."""
        members = self.queries[0].members or self.card["members"]
        return {
            "x-ensemble-trace-id": self.trace_id,
            "x-ensemble-method": _ascii(str(self.card["method"])),
            "x-ensemble-model": _ascii(",".join(members)),
        }


def chat_exchange(
    asked: ChatRequest,
    model: str,
    card: Mapping[str, Any],
    max_n: int,
    started: float,
    past: Past | None = None,
) -> Exchange:
    messages = tuple(
        Message("system" if turn.role == "developer" else turn.role, turn.content)
        for turn in asked.messages
    )
    return _exchange(asked, model, card, max_n, started, [{"messages": messages}], past)


def completion_exchange(
    asked: CompletionRequest,
    prompts: Sequence[tuple[str, tuple[int, ...] | None]],
    model: str,
    card: Mapping[str, Any],
    max_n: int,
    started: float,
    past: Past | None = None,
) -> Exchange:
    """``prompts`` are ``asked.prompt`` as text, and the token ids where it was sent so."""
    score = bool(asked.echo) and asked.logprobs is not None
    inputs = [{"prompt": text, "prompt_ids": ids, "score_prompt": score} for text, ids in prompts]
    return _exchange(asked, model, card, max_n, started, inputs, past, bool(asked.echo))


def _exchange(
    asked: Asked,
    model: str,
    card: Mapping[str, Any],
    max_n: int,
    started: float,
    inputs: Sequence[Mapping[str, Any]],
    past: Past | None,
    echo: bool = False,
) -> Exchange:
    n = asked.n or 1
    check_choices(n, max_n, len(inputs))
    stream = bool(asked.stream)
    _check_support(card, model, n, stream, asked.options.threshold is not None)
    check_logprobs(asked, card)
    if past is not None and past.marks and not stream:
        raise BadRequest(f"{PARAM} is of a stream; ask with stream: true", PARAM)
    ignored = ignored_params(asked, n)
    trace = asked.options.trace or "summary"
    first = secrets.randbelow(2**31) if past is None else past.seed
    seed = first if asked.seed is None else asked.seed
    common = Query(
        id=uuid.uuid4().hex if past is None else past.trace_id,
        model=model,
        max_tokens=asked.limit,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=asked.stop,
        ignore_eos=bool(asked.ignore_eos),
        priority=asked.priority or 0,
        members=_subset(asked.options.members, card),
        budget=asked.options.budget.budget() if asked.options.budget else Budget(),
        trace=trace,
        logprobs=asked.alternatives,
        threshold=asked.options.threshold,
        again=past is not None,
        request_id=current_request().request_id,
        traceparent=current_activity().traceparent,
    )
    queries: list[Query] = []
    for given in inputs:
        for choice in range(n):
            index = len(queries)
            id = common.id if index == 0 else f"{common.id}-{index}"
            queries.append(replace(common, id=id, seed=(seed + choice) % SEEDS, **given))
    include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
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
        marks=past.marks if past else (),
        resumable=bool(asked.options.resumable) or asked.options.resume is not None,
    )


def check_choices(n: int, max_n: int, prompts: int) -> None:
    """``BadRequest`` for more choices than one request may have."""
    if n > max_n:
        raise BadRequest(f"n: this server writes at most {max_n} choices, not {n}", "n")
    if n * prompts > MAX_CHOICES:
        raise BadRequest(
            f"{prompts} prompts with n = {n} are more than {MAX_CHOICES} choices; send fewer",
            "prompt",
        )


def _check_support(
    card: Mapping[str, Any], model: str, n: int, stream: bool, threshold: bool
) -> None:
    supports = card.get("supports", {})
    asked = (("n", n > 1), ("stream", stream), ("threshold", threshold))
    for name, wanted in asked:
        if wanted and not supports.get(name, True):
            raise BadRequest(f"model {model!r} has no {name}", name, "unsupported_parameter")


def _subset(wanted: list[str] | None, card: Mapping[str, Any]) -> tuple[str, ...] | None:
    if wanted is None:
        return None
    members = card["members"]
    unknown = [name for name in wanted if name not in members]
    if unknown:
        raise BadRequest(
            f"ensemble.members: {', '.join(unknown)} not among {', '.join(members)}",
            "ensemble.members",
        )
    if len(set(wanted)) < len(wanted):
        raise BadRequest("ensemble.members names one member twice", "ensemble.members")
    return tuple(name for name in members if name in wanted)


def _ascii(text: str) -> str:
    """Header values are ASCII."""
    return text.encode("ascii", "replace").decode("ascii")

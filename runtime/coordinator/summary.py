"""The ``ensemble`` object of an answer: who wrote what, and what it cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from runtime.session.session import RequestSession
from runtime.types.spans import TokenChoice


def shares(session: RequestSession[Any, Any]) -> dict[str, float]:
    """Fraction of the answer's characters by each member."""
    written: Counter[str] = Counter()
    for start, end, span in _placed(session):
        written[span.author] += end - start
    total = sum(written.values())
    return {name: written[name] / total if total else 0.0 for name in session.names}


def summarise(
    session: RequestSession[Any, Any], *, level: str, stop_reason: str, currency: str
) -> dict[str, Any]:
    """docs/api.md describes the keys. Offsets count Unicode code points."""
    share = shares(session)
    steps = Counter(span.author for span in session.spans)
    members = []
    for name in session.names:
        usage = session.ledger.usage[name]
        dropped = session.dropped.get(name)
        entry: dict[str, Any] = {
            "model": name,
            "status": "ok" if dropped is None else "dropped",
            "calls": usage.calls,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "cost": usage.cost,
            "latency_ms": round(usage.seconds * 1000, 1),
            "retries": usage.retries,
            "share": round(share[name], 4),
            "spans": steps[name],
        }
        if dropped is not None:
            entry |= {"error": dropped.reason, "dropped_at_step": dropped.step}
        members.append(entry)
    spent = session.ledger.spent()
    return {
        "trace_id": session.query.id,
        "method": session.config.method,
        "level": level,
        "members": members,
        **(
            {}
            if session.judge is None
            else {"reward_model": _aux_model(session, session.judge.name)}
        ),
        **(
            {}
            if session.encoder is None
            else {"encoder": _aux_model(session, session.encoder.name)}
        ),
        **session.decision,
        "spans": [
            {"start": start, "end": end, "model": span.author, "step": span.step}
            | ({"score": span.scores[span.author]} if span.author in span.scores else {})
            for start, end, span in _placed(session)
        ],
        "steps": session.step,
        "usage": {
            "model_calls": spent.calls,
            "prompt_tokens": spent.prompt_tokens,
            "cached_tokens": spent.cached_tokens,
            "completion_tokens": spent.completion_tokens,
            "total_tokens": spent.prompt_tokens + spent.completion_tokens,
        },
        "cost": {"amount": spent.cost, "currency": currency, "source": "configured prices"},
        "latency_ms": {
            "total": round(session.ledger.elapsed * 1000, 1),
            "members": round(spent.seconds * 1000, 1),
        },
        "stop_reason": stop_reason,
        "degraded": bool(session.dropped),
        "warnings": list(session.warnings),
        "seed": session.query.seed,
        "full": {
            "rounds": [
                {"step": span.step, "winner": span.author, "text": span.text}
                | {"scores": dict(span.scores), "weights": span.weights and dict(span.weights)}
                | (
                    {"tokens": [_token_entry(token) for token in span.tokens]}
                    if span.tokens
                    else {}
                )
                for span in session.spans
            ],
            "state": dict(session.state),
            "budget": asdict(session.ledger.budget),
        },
    }


def _aux_model(session: RequestSession[Any, Any], name: str) -> dict[str, Any]:
    """Calls and cost of an auxiliary model."""
    usage = session.ledger.usage[name]
    return {
        "model": name,
        "calls": usage.calls,
        "cost": usage.cost,
        "latency_ms": round(usage.seconds * 1000, 1),
        "retries": usage.retries,
    }


def _token_entry(token: TokenChoice) -> dict[str, Any]:
    """A token with each member's own choice there; ``""`` is the end of the answer."""
    return {
        "token": _text(token.data),
        "bytes": list(token.data),
        "logprob": token.logprob,
        "weights": dict(token.weights),
        "choices": {name: _text(data) for name, data in token.choices.items()},
    }


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _placed(session: RequestSession[Any, Any]) -> list[tuple[int, int, Any]]:
    """Spans with their place in the answer; a stop string may have cut some of them short."""
    placed, at, length = [], 0, len(session.text)
    for span in session.spans:
        end = min(at + len(span.text), length)
        if end > at or span.final:
            placed.append((min(at, length), end, span))
        at = end
    return placed

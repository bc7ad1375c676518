"""Typed errors. Each is raised where its cause is known; only deployments/http/errors.py maps them
to HTTP. All keep their arguments in ``args``, so that they survive pickling between processes.
"""

from __future__ import annotations


class OrchestrionError(Exception):
    """Base of all errors of Orchestrion."""


class ConfigError(OrchestrionError):
    """The configuration is invalid; the message names the key and the remedy."""


class WeightsError(OrchestrionError):
    """Weights cannot be fetched or loaded; the message names the remedy."""


class BadRequest(OrchestrionError):
    """The request is invalid: ``BadRequest(message, param, code)``."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param, code)
        self.message, self.param, self.code = message, param, code

    def __str__(self) -> str:
        return self.message


class UnknownModel(OrchestrionError):
    """``UnknownModel(model, known)``"""

    def __init__(self, model: str, known: tuple[str, ...]) -> None:
        super().__init__(model, known)
        self.model, self.known = model, known

    def __str__(self) -> str:
        return f"model {self.model!r} does not exist; known models: {', '.join(self.known)}"


class ContextOverflow(OrchestrionError):
    """The prompt exceeds a member's context length: ``ContextOverflow(member, tokens, limit,
    at_least)``. ``at_least``: counting stopped early, so ``tokens`` is a lower bound."""

    def __init__(self, member: str, tokens: int, limit: int, at_least: bool = False) -> None:
        super().__init__(member, tokens, limit, at_least)
        self.member, self.tokens, self.limit, self.at_least = member, tokens, limit, at_least

    def __str__(self) -> str:
        return (
            f"the prompt has {'at least ' if self.at_least else ''}{self.tokens} tokens for "
            f"member {self.member!r}, whose context length is "
            f"{self.limit}; shorten the prompt or exclude this member"
        )


class Overloaded(OrchestrionError):
    """A queue is full: ``Overloaded(what, retry_after)`` with seconds."""

    def __init__(self, what: str, retry_after: float = 1.0) -> None:
        super().__init__(what, retry_after)
        self.what, self.retry_after = what, retry_after

    def __str__(self) -> str:
        return f"{self.what} is full; try again in {self.retry_after:g} s"


class Unauthorised(OrchestrionError):
    """The request has no API key, or an unknown one."""


class Forbidden(OrchestrionError):
    """The caller lacks permission: ``Forbidden(message, code, param)``."""

    def __init__(self, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message, code, param)
        self.message, self.code, self.param = message, code, param

    def __str__(self) -> str:
        return self.message


class TooMany(OrchestrionError):
    """A key exceeds its rate limit: ``TooMany(limit, retry_after)`` with seconds."""

    def __init__(self, limit: str, retry_after: float) -> None:
        super().__init__(limit, retry_after)
        self.limit, self.retry_after = limit, retry_after

    def __str__(self) -> str:
        return f"this key may make {self.limit}; try again in {self.retry_after:.3g} s"


class QuotaSpent(OrchestrionError):
    """A key's quota is used up: ``QuotaSpent(limit, retry_after)`` with seconds."""

    def __init__(self, limit: str, retry_after: float) -> None:
        super().__init__(limit, retry_after)
        self.limit, self.retry_after = limit, retry_after

    def __str__(self) -> str:
        hours, rest = divmod(round(self.retry_after), 3600)
        wait = f"{hours} h {rest // 60} min"
        return f"this key's budget of {self.limit} is used up; the next begins in {wait}"


class EngineFault(OrchestrionError):
    """An engine failed a valid call. The call may be retried."""


class Unsupported(OrchestrionError):
    """An engine lacks a capability: ``Unsupported(model, capability)``. A retry does not help."""

    def __init__(self, model: str, capability: str) -> None:
        super().__init__(model, capability)
        self.model, self.capability = model, capability

    def __str__(self) -> str:
        return f"the engine of {self.model!r} does not support {self.capability!r}"


class UnknownRouter(OrchestrionError):
    """A deferral names a router that the engine does not hold: ``UnknownRouter(model, version)``.
    The caller repeats the call with the router's weights."""

    def __init__(self, model: str, version: str) -> None:
        super().__init__(model, version)
        self.model, self.version = model, version

    def __str__(self) -> str:
        return f"the engine of {self.model!r} does not hold router {self.version}"


class ReplicaUnavailable(EngineFault):
    """No replica can serve a call; a new one may start."""


class MemberFailed(OrchestrionError):
    """A member failed after its retries: ``MemberFailed(member, reason, unavailable)``. An
    unavailable member had no replica; the caller may wait for one."""

    def __init__(self, member: str, reason: str, unavailable: bool = False) -> None:
        super().__init__(member, reason, unavailable)
        self.member, self.reason, self.unavailable = member, reason, unavailable

    def __str__(self) -> str:
        return f"member {self.member!r}: {self.reason}"


class QuorumLost(OrchestrionError):
    """Fewer members than the quorum are left: ``QuorumLost(needed, states)``, a state per
    member."""

    def __init__(self, needed: int, states: dict[str, str]) -> None:
        super().__init__(needed, states)
        self.needed, self.states = needed, states

    def __str__(self) -> str:
        listed = "; ".join(f"{name}: {state}" for name, state in self.states.items())
        return f"fewer than {self.needed} members are left ({listed})"


class Diverged(OrchestrionError):
    """A resumed answer differs from the text already sent: ``Diverged(choice)``."""

    def __init__(self, choice: int) -> None:
        super().__init__(choice)
        self.choice = choice

    def __str__(self) -> str:
        return (
            f"choice {self.choice} could not be resumed: its checkpoint is gone, and the text "
            "generated again differs from the text sent so far; send the request again without "
            "ensemble.resume"
        )


class BudgetSpent(OrchestrionError):
    """A request's budget is used up: ``BudgetSpent(which)``: calls, tokens, cost or time."""

    def __init__(self, which: str) -> None:
        super().__init__(which)
        self.which = which

    def __str__(self) -> str:
        return f"the request's {self.which} budget is used up"


class NotReady(OrchestrionError):
    """A model is not ready to serve: ``NotReady(model, state)``."""

    def __init__(self, model: str, state: str) -> None:
        super().__init__(model, state)
        self.model, self.state = model, state

    def __str__(self) -> str:
        return f"model {self.model!r} is not ready ({self.state})"

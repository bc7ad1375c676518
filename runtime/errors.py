"""Typed errors. Each is raised where the fault is known; deployments/http/errors.py alone maps
them to HTTP. All keep their arguments in ``args`` so that they survive pickling between processes.
"""

from __future__ import annotations


class OrchestrionError(Exception):
    """Base of all faults we name."""


class ConfigError(OrchestrionError):
    """The configuration cannot work; the message names the key and the remedy."""


class WeightsError(OrchestrionError):
    """Weights cannot be had; the message names the remedy."""


class BadRequest(OrchestrionError):
    """The request cannot be served as written: ``BadRequest(message, param, code)``."""

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
    """The prompt does not fit a member's window: ``ContextOverflow(member, tokens, limit)``, with
    ``at_least`` where it was not counted to its end."""

    def __init__(self, member: str, tokens: int, limit: int, at_least: bool = False) -> None:
        super().__init__(member, tokens, limit, at_least)
        self.member, self.tokens, self.limit, self.at_least = member, tokens, limit, at_least

    def __str__(self) -> str:
        return (
            f"the prompt takes {'at least ' if self.at_least else ''}{self.tokens} tokens of "
            f"member {self.member!r}, whose window is "
            f"{self.limit}; shorten the prompt or leave this member out"
        )


class Overloaded(OrchestrionError):
    """A queue is full: ``Overloaded(what, retry_after)`` with seconds."""

    def __init__(self, what: str, retry_after: float = 1.0) -> None:
        super().__init__(what, retry_after)
        self.what, self.retry_after = what, retry_after

    def __str__(self) -> str:
        return f"{self.what} is full; try again in {self.retry_after:g} s"


class Unauthorised(OrchestrionError):
    """The request has no key, or none that is known."""


class Forbidden(OrchestrionError):
    """Not for this caller: ``Forbidden(message, code, param)``."""

    def __init__(self, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message, code, param)
        self.message, self.code, self.param = message, code, param

    def __str__(self) -> str:
        return self.message


class TooMany(OrchestrionError):
    """A key asks too often: ``TooMany(limit, retry_after)`` with seconds."""

    def __init__(self, limit: str, retry_after: float) -> None:
        super().__init__(limit, retry_after)
        self.limit, self.retry_after = limit, retry_after

    def __str__(self) -> str:
        return f"this key may make {self.limit}; try again in {self.retry_after:.3g} s"


class QuotaSpent(OrchestrionError):
    """A key's budget is used up: ``QuotaSpent(limit, retry_after)`` with seconds."""

    def __init__(self, limit: str, retry_after: float) -> None:
        super().__init__(limit, retry_after)
        self.limit, self.retry_after = limit, retry_after

    def __str__(self) -> str:
        hours, rest = divmod(round(self.retry_after), 3600)
        wait = f"{hours} h {rest // 60} min"
        return f"this key's budget of {self.limit} is used up; the next begins in {wait}"


class EngineFault(OrchestrionError):
    """An engine could not do a call that was well formed. Worth a retry."""


class Unsupported(OrchestrionError):
    """An engine lacks a capability: ``Unsupported(model, capability)``. Not worth a retry."""

    def __init__(self, model: str, capability: str) -> None:
        super().__init__(model, capability)
        self.model, self.capability = model, capability

    def __str__(self) -> str:
        return f"the engine of {self.model!r} has no {self.capability!r}"


class UnknownRouter(OrchestrionError):
    """An engine is to hand over by a router that it was not sent: ``UnknownRouter(model,
    version)``. Whoever asked sends it with the same call again."""

    def __init__(self, model: str, version: str) -> None:
        super().__init__(model, version)
        self.model, self.version = model, version

    def __str__(self) -> str:
        return f"the engine of {self.model!r} does not know router {self.version}"


class ReplicaUnavailable(EngineFault):
    """Nobody is there to do a call; a new replica may come."""


class MemberFailed(OrchestrionError):
    """A member failed after its retries: ``MemberFailed(member, reason, absent)``. One that was
    only absent may be waited for."""

    def __init__(self, member: str, reason: str, unavailable: bool = False) -> None:
        super().__init__(member, reason, unavailable)
        self.member, self.reason, self.unavailable = member, reason, unavailable

    def __str__(self) -> str:
        return f"member {self.member!r}: {self.reason}"


class QuorumLost(OrchestrionError):
    """Too few members are left: ``QuorumLost(needed, states)`` with a state per member."""

    def __init__(self, needed: int, states: dict[str, str]) -> None:
        super().__init__(needed, states)
        self.needed, self.states = needed, states

    def __str__(self) -> str:
        told = "; ".join(f"{name}: {state}" for name, state in self.states.items())
        return f"fewer than {self.needed} members are left ({told})"


class Diverged(OrchestrionError):
    """An answer that was to go on has become another one: ``Diverged(choice)``."""

    def __init__(self, choice: int) -> None:
        super().__init__(choice)
        self.choice = choice

    def __str__(self) -> str:
        return (
            f"choice {self.choice} could not be continued: its checkpoint is gone and, written "
            "again, it is another text than the one sent so far; ask anew without ensemble.resume"
        )


class BudgetSpent(OrchestrionError):
    """A budget is used up: ``BudgetSpent(which)``, one of calls, tokens, cost, time."""

    def __init__(self, which: str) -> None:
        super().__init__(which)
        self.which = which

    def __str__(self) -> str:
        return f"the request's {self.which} budget is used up"


class NotReady(OrchestrionError):
    """A model cannot answer yet: ``NotReady(model, state)``."""

    def __init__(self, model: str, state: str) -> None:
        super().__init__(model, state)
        self.model, self.state = model, state

    def __str__(self) -> str:
        return f"model {self.model!r} is not ready ({self.state})"

"""Questions and models of ``orchestrion eval``."""

from __future__ import annotations

from pydantic import Field, field_validator

from runtime.config.base import Strict


class RoutesConfig(Strict):
    """Routes that an ensemble which learns routes is compared with."""

    ensemble: str
    """Its name; the routes are over its members, with its prompts."""
    fixed: int = Field(2, ge=1)
    """Calls of the longest fixed route; all that ask nobody twice are tried."""
    t_max: int = Field(5, ge=1)
    """Calls of the oracle's longest route."""


class SweepConfig(Strict):
    """How accuracy follows from how much is handed over."""

    large: str
    """The member that tokens are handed over to."""
    thresholds: dict[str, tuple[float, ...]]
    """Ensemble -> the thresholds at which all questions are evaluated."""
    shares: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3)
    """Shares of the large member's tokens at which the ensembles are compared; between two
    thresholds, and from all small to all large, accuracy is taken to be linear."""

    @field_validator("thresholds")
    @classmethod
    def _from_0_to_1(cls, thresholds: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for name, values in thresholds.items():
            if not values or not all(0 <= value <= 1 for value in values):
                raise ValueError(f"thresholds of {name!r}: one or more from 0 to 1")
        return thresholds


class EvaluationConfig(Strict):
    """What ``orchestrion eval`` asks when the command line does not say."""

    questions: str
    """A JSONL file with ``question`` and ``answer``, relative to the working folder."""
    limit: int | None = Field(None, ge=1)
    """The first so many questions; absent: all."""
    max_tokens: int = Field(64, ge=1)
    answer_pattern: str = r"Answer:\s*(.+?)\s*$"
    """A regular expression whose first group, in its last match, is the answer that was given."""
    concurrency: int = Field(16, ge=1)
    experts: dict[str, str] = {}
    """Relation -> the member that knows it; the table then has the share of facts that their expert
    wrote."""
    models: tuple[str, ...] | None = None
    """Models to compare; absent: every ensemble and every member alone."""
    routes: RoutesConfig | None = None
    """Also the oracle's routes and the best fixed ones."""
    sweep: SweepConfig | None = None
    """Also ensembles that hand tokens over, at several thresholds."""

    @field_validator("answer_pattern")
    @classmethod
    def _has_a_group(cls, pattern: str) -> str:
        import re

        try:
            compiled = re.compile(pattern)
        except re.error as fault:
            raise ValueError(f"answer_pattern is not a regular expression: {fault}") from None
        if compiled.groups < 1:
            raise ValueError("answer_pattern needs a (group) around the answer")
        return pattern

"""Configuration shared by methods that write step by step."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field, field_validator

from runtime.config.ensembles import PolicyConfig

LIKELIHOOD: Final = "likelihood"


class ProcessConfig(PolicyConfig):
    step_tokens: int = Field(128, ge=1)
    """Most tokens of one step; a longer line is cut into several."""
    max_steps: int = Field(16, ge=1)
    """Most steps of an answer."""
    ends: tuple[str, ...] = (r"\\boxed\s*\{", r"(?i)\bthe answer is\b", r"####", r"(?im)^answer:")
    """Regular expressions: a step that matches one ends the answer, as its author's EOS does. Some
    models write on after their answer."""

    @field_validator("ends")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as fault:
                raise ValueError(f"{pattern!r} is not a regular expression: {fault}") from None
        return patterns


class JudgedConfig(ProcessConfig):
    reward: str
    """The reward model that scores steps, by its name under ``reward_models``; or ``likelihood``:
    the mean over the members of the mean probability that each gives to the step's tokens. That
    needs no trained model; it measures how fluent a step is rather than whether it is right."""

    @property
    def judge(self) -> str | None:
        return None if self.reward == LIKELIHOOD else self.reward

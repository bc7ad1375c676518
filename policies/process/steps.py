"""One reasoning step: writing it, finding its end, scoring it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from policies.process.config import ProcessConfig
from runtime.errors import ContextOverflow
from runtime.rng import derive_seed
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.draft import Candidate, mean_probability

BLANKS: Final = 3
"""Calls that may return only blank lines before a member counts as having nothing to add."""

_LINE: Final = re.compile(r"\s*\S[^\n]*\n")


@dataclass(frozen=True, slots=True)
class Step:
    """A line that a member would write next, its newline included."""

    author: str
    text: str
    final: bool = False
    """The author ended the answer with its EOS."""
    finished: bool = False
    """The answer ends with this step: by EOS, a stop string or ``ends``."""
    logprobs: tuple[float, ...] = ()
    """Of the author's own tokens."""


async def write(
    session: Session,
    member: Member,
    path: str,
    config: ProcessConfig,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    sample: tuple[int, ...] = (),
    guess: str = "",
) -> Step | None:
    """The next step after ``path``, up to and with the newline; ``None`` when the member has
    nothing to add, its window is full, or the caller's token limit is reached.

    ``sample`` distinguishes the seeds of samples at one place; ``guess`` is a likely step that an
    engine may verify instead of decoding, with the same result.
    """
    room = session.tokens_left - tokens_of(session, path)
    text = ""
    logprobs: tuple[float, ...] = ()
    for _ in range(BLANKS):
        if room <= 0:
            return None
        sampling = session.sampling(
            member, min(config.step_tokens, room), temperature=temperature, top_p=top_p
        )
        sampling = replace(
            sampling, stop=("\n", *sampling.stop), seed=derive_seed(sampling.seed, *sample)
        )
        try:
            draft = await member.draft(sampling, after=path + text, guess="" if text else guess)
        except ContextOverflow:  # of this member; others may have room
            return None
        before = len(text)
        text, logprobs = text + draft.text, (*logprobs, *draft.logprobs)
        line = _LINE.match(text)
        if line is not None:
            cut = draft.cut(line.end() - before)
            whole = len(cut.text) == len(draft.text)
            lost = len(draft.logprobs) - len(cut.logprobs)
            logprobs = logprobs[: len(logprobs) - lost]
            text, final = text[: line.end()], draft.final and whole
            return _step(session, path, text, final, config, member.name, logprobs)
        if draft.final or text.strip():
            return _step(session, path, text, draft.final, config, member.name, logprobs)
        if not draft.text:
            return None
        room -= len(draft.tokens)
    return None


def _step(
    session: Session,
    path: str,
    text: str,
    final: bool,
    config: ProcessConfig,
    author: str,
    logprobs: Sequence[float],
) -> Step:
    ended = final or session.stops_in(path + text, len(path)) or ends(text, config.ends)
    return Step(author, text, final, ended, tuple(logprobs))


def ends(text: str, patterns: Sequence[str]) -> bool:
    """Whether a step matches one of ``patterns`` and so ends the answer."""
    return any(re.search(pattern, text) for pattern in patterns)


def tokens_of(session: Session, text: str) -> int:
    """The number of visible tokens of a text."""
    return len(session.visible.tokenizer.encode(text)) if text else 0


async def value_of(session: Session, path: Sequence[str], step: Step) -> float | None:
    """The value of a step after the steps of ``path``, in [0, 1]; ``None`` when no window holds
    them. An empty step, which is a bare EOS, has the value of the chain before it.

    Raises ``MemberFailed`` when the reward model fails.
    """
    steps = [*path, step.text] if step.text.strip() else list(path)
    if not steps:
        return 0.0
    if session.judge is not None:
        try:
            [value] = await session.judge.score_steps(session.question, steps, since=len(steps) - 1)
        except ContextOverflow:
            return None
        return value
    scored = await likelihoods(session, "".join(path), step)
    return math.fsum(map(mean_probability, scored.values())) / len(scored) if scored else None


async def likelihoods(session: Session, path: str, step: Step) -> dict[str, tuple[float, ...]]:
    """Every member's logprobs of a step, in its own tokens; the author's are those it wrote with.
    Members whose window cannot hold it are missing."""

    async def score(member: Member) -> tuple[float, ...]:
        if member.name == step.author and step.logprobs:
            return step.logprobs
        try:
            [logprobs] = await member.score([Candidate(step.text, step.final)], after=path)
        except ContextOverflow:
            return ()
        return logprobs

    scored = await session.each(score)
    return {name: logprobs for name, logprobs in scored.items() if logprobs}

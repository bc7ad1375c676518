"""One step of reasoning: how it is written, where it ends, what it is worth."""

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
"""Calls that may bring blank lines only before a member counts as having nothing to say."""

_LINE: Final = re.compile(r"\s*\S[^\n]*\n")


@dataclass(frozen=True, slots=True)
class Step:
    """A line that a member would write next, its newline included."""

    author: str
    text: str
    final: bool = False
    """The author ended the answer with its EOS."""
    finished: bool = False
    """The answer ends with this step, in whatever way."""
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
    nothing to say, its window is full, or the caller's limit is reached. ``sample`` tells samples
    of one place apart; ``guess`` is a step that it may well write, which changes nothing else."""
    room = session.tokens_left - tokens_of(session, path)
    text = ""
    logprobs: tuple[float, ...] = ()
    for _ in range(BLANKS):
        if room <= 0:
            return None
        wish = session.sampling(
            member, min(config.step_tokens, room), temperature=temperature, top_p=top_p
        )
        wish = replace(wish, stop=("\n", *wish.stop), seed=derive_seed(wish.seed, *sample))
        try:
            draft = await member.draft(wish, after=path + text, guess="" if text else guess)
        except ContextOverflow:  # of this member; others may have room
            return None
        before = len(text)
        text, logprobs = text + draft.text, (*logprobs, *draft.logprobs)
        line = _LINE.match(text)
        if line is not None:
            kept = draft.cut(line.end() - before)
            whole = len(kept.text) == len(draft.text)
            lost = len(draft.logprobs) - len(kept.logprobs)
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
    """Whether a step holds the answer."""
    return any(re.search(pattern, text) for pattern in patterns)


def tokens_of(session: Session, text: str) -> int:
    """How many visible tokens a text would take."""
    return len(session.visible.tokenizer.encode(text)) if text else 0


async def worth(session: Session, path: Sequence[str], step: Step) -> float | None:
    """The value of a step after the steps of ``path``, in [0, 1]; ``None`` when no window holds
    them, so that nobody can say.

    An empty step, an author's bare EOS, is worth what the chain before it is.
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
    told = await likelihoods(session, "".join(path), step)
    return math.fsum(map(mean_probability, told.values())) / len(told) if told else None


async def likelihoods(session: Session, path: str, step: Step) -> dict[str, tuple[float, ...]]:
    """Every member's logprobs of a step, in its own tokens; its author knows its own. Members whose
    window cannot hold it are missing."""

    async def tell(member: Member) -> tuple[float, ...]:
        if member.name == step.author and step.logprobs:
            return step.logprobs
        try:
            [logprobs] = await member.score([Candidate(step.text, step.final)], after=path)
        except ContextOverflow:
            return ()
        return logprobs

    told = await session.each(tell)
    return {name: logprobs for name, logprobs in told.items() if logprobs}

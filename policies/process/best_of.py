"""Best-of-N and best-of-ensemble, baselines of LE-MCTS (arXiv 2412.15797): the reward model picks
one of several whole answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from policies.process.base import Line, ProcessPolicy, SearchResult, content_order
from policies.process.config import JudgedConfig
from policies.process.ranking import first
from policies.process.steps import Step, ends, value_of
from runtime.errors import BudgetSpent, ContextOverflow
from runtime.rng import derive_seed
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.draft import Draft
from runtime.types.spans import Progress


class BestOfConfig(JudgedConfig):
    n: int = Field(9, ge=1)
    """Answers by each member."""
    temperature: float = Field(0.5, ge=0)
    """As in the paper; at 0 all answers of a member are the same."""
    top_p: float = Field(0.95, gt=0, le=1)
    """The paper uses nucleus sampling without giving the value."""


class BestOfNConfig(BestOfConfig):
    type: Literal["best-of-n"] = "best-of-n"

    @model_validator(mode="after")
    def _one_member(self) -> BestOfNConfig:
        if len(self.members) != 1:
            raise ValueError(
                "members: best-of-n takes one member; use best-of-ensemble for several"
            )
        return self


class BestOfEnsembleConfig(BestOfConfig):
    type: Literal["best-of-ensemble"] = "best-of-ensemble"
    n: int = Field(3, ge=1)
    """Answers by each member; with the paper's three members as many as its best-of-9."""


class BestOf(ProcessPolicy[BestOfConfig]):
    """Members write whole answers, all at the same time, by nucleus sampling; the reward model
    scores each by its last step, and the best finished one is returned. Values that agree to six
    significant digits are equal; then the author who comes first in ``members`` wins, then the
    lesser text.

    Cost: for each answer one call to its member and one to the reward model.
    """

    paper: ClassVar[str] = "2412.15797"

    async def search(self, session: Session) -> AsyncGenerator[Progress | SearchResult, None]:
        requests = [(name, number) for name in session.live for number in range(self.config.n)]
        tasks = [asyncio.create_task(self._answer(session, *one)) for one in requests]
        stopped_by = None
        try:
            for number, task in enumerate(asyncio.as_completed(tasks), 1):
                try:
                    await task
                except BudgetSpent as spent:
                    stopped_by = f"budget_{spent.which}"
                yield Progress(number, len(tasks))
        finally:
            for open_task in tasks:
                open_task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        results = [task.result() for task in tasks if task.exception() is None]
        answers = [answer for answer in results if answer is not None]
        yield replace(best(answers, session.names), stopped_by=stopped_by)

    async def _answer(self, session: Session, name: str, number: int) -> SearchResult | None:
        """One answer and its value; ``None`` when the member failed or no window holds it."""
        config = self.config

        async def write(member: Member) -> Draft:
            sampling = session.sampling(
                member, session.tokens_left, temperature=config.temperature, top_p=config.top_p
            )
            return await member.draft(replace(sampling, seed=derive_seed(sampling.seed, number)))

        try:
            written = await session.each(write, [name])
        except ContextOverflow:  # of this member; others may have room
            return None
        if name not in written:
            return None
        steps, finished = cut(session, written[name], config.ends, config.max_steps)
        if not steps:
            return None
        value = await value_of(session, [step.text for step in steps[:-1]], steps[-1])
        if value is None:
            return None
        lines = [Line(step.text, name, value, step.final) for step in steps]
        return SearchResult(tuple(lines), finished)


def cut(
    session: Session, draft: Draft, patterns: Sequence[str], most: int
) -> tuple[list[Step], bool]:
    """A whole answer as at most ``most`` steps, up to the one that ends it, and whether one does.
    Blank lines belong to the step after them."""
    lines = re.findall(r"\s*\S[^\n]*\n?", draft.text)
    steps: list[Step] = []
    for number, line in enumerate(lines[:most], 1):
        final = draft.final and number == len(lines)
        ended = final or session.stops_in(
            "".join(lines[:number]), len("".join(lines[: number - 1]))
        )
        ended = ended or ends(line, patterns)
        steps.append(Step(draft.author, line, final, ended))
        if ended:
            return steps, True
    return steps, False


def best(answers: Sequence[SearchResult], members: Sequence[str]) -> SearchResult:
    """The finished answer of the highest value, or else the unfinished one. Values that agree to
    six significant digits are equal; then the author who comes first in ``members`` wins, then the
    lesser text. Without answers an empty one."""
    if not answers:
        return SearchResult((), False)
    return first(
        [answer for answer in answers if answer.finished] or answers,
        lambda answer: answer.lines[-1].value,
        lambda answer: content_order(answer.lines, members),
    )


class BestOfN(BestOf):
    """One member's best of several answers."""

    title: ClassVar[str] = "Best of N"


class BestOfEnsemble(BestOf):
    """All members' best of several answers."""

    title: ClassVar[str] = "Best of ensemble"

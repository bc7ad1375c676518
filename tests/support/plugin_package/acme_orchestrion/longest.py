"""The longest answer wins.

Every member writes its whole answer; of equally long ones the first member's is taken.

Cost: one call to each member.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import ClassVar, Literal

from policies.base import Method, Need, Policy
from runtime.config.ensembles import PolicyConfig
from runtime.session.session import Session
from runtime.types.spans import Span


class LongestConfig(PolicyConfig):
    type: Literal["longest"] = "longest"


class Longest(Policy[LongestConfig]):
    """The longest of the members' answers."""

    level: ClassVar[str] = "selection"
    title: ClassVar[str] = "Longest answer"
    needs: ClassVar[tuple[Need, ...]] = (Need("generate"),)

    async def answer(self, session: Session) -> AsyncGenerator[Span, None]:
        while session.ending is None:
            drafts = await session.each(
                lambda member: member.draft(session.sampling(member, session.tokens_left))
            )
            yield session.commit(max(drafts.values(), key=lambda draft: len(draft.text)))


METHOD = Method(Longest, LongestConfig)

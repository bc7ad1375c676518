"""One member alone: the baseline that every comparison needs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import ClassVar, Literal

from pydantic import Field

from policies.base import Policy
from runtime.config import PolicyConfig
from runtime.session import Session
from runtime.types import Span


class SingleConfig(PolicyConfig):
    type: Literal["single"] = "single"
    chunk_tokens: int = Field(8, ge=1)
    """Tokens written per call; smaller streams more finely and costs more messages."""
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)


class Single(Policy[SingleConfig]):
    """The first member writes everything.

    It goes on from its own tokens, so the text is the one a single long call would give: noise is
    keyed by position and chunk borders change nothing. Members after the first stand by: should
    the writer be dropped, the next one continues its text.

    Cost: one call for each ``chunk_tokens`` tokens.
    """

    level: ClassVar[str] = "single"
    title: ClassVar[str] = "One member alone"

    async def answer(self, session: Session) -> AsyncGenerator[Span, None]:
        config, state = self.config, session.state
        while session.ending is None:
            author = next(iter(session.live))
            ids = state["ids"] if state.get("author") == author else None
            size = max(1, min(config.chunk_tokens, session.tokens_left + 1))
            drafts = await session.each(
                lambda member, ids=ids, size=size: member.draft(  # type: ignore[misc]
                    session.sampling(
                        member, size, temperature=config.temperature, top_p=config.top_p
                    ),
                    ids,
                ),
                [author],
            )
            if author not in drafts:
                continue
            draft = drafts[author]
            before = session.live[author].context.answer_ids if ids is None else ids
            state["author"] = author
            state["ids"] = [*before, *(draft.tokens[:-1] if draft.final else draft.tokens)]
            yield session.commit(draft)

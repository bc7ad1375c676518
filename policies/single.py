"""One member alone: the baseline that every comparison needs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from policies.base import Need, Policy
from runtime.config.ensembles import PolicyConfig
from runtime.errors import BadRequest
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.types.sampling import Sampling
from runtime.types.spans import Span, TokenChoice


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
    needs: ClassVar[tuple[Need, ...]] = (Need("generate"),)
    title: ClassVar[str] = "One member alone"
    tells_logprobs: ClassVar[bool] = True
    can_score: ClassVar[bool] = True

    async def answer(self, session: Session) -> AsyncGenerator[Span, None]:
        state = session.state
        while session.ending is None:
            author = next(iter(session.live))
            ids = state["ids"] if state.get("author") == author else None
            size = max(1, min(self.config.chunk_tokens, session.tokens_left + 1))
            drafts = await session.each(
                lambda member, ids=ids, size=size: member.draft(  # type: ignore[misc]
                    self._sampling(session, member, size), ids
                ),
                [author],
            )
            if author not in drafts:
                continue
            draft, member = drafts[author], session.live[author]
            before = member.context.answer_ids if ids is None else ids
            state["author"] = author
            state["ids"] = [*before, *(draft.tokens[:-1] if draft.final else draft.tokens)]
            wanted = session.query.logprobs is not None
            tokens = member.token_choices(draft.tokens, draft.logprobs, draft.top) if wanted else ()
            yield session.commit(draft, tokens=tokens)

    async def score(self, session: Session) -> list[TokenChoice]:
        """Its logprobs of the prompt, in one pass; of the next member if the first is dropped."""
        top_k = session.query.logprobs or 0
        while True:
            author = next(iter(session.live))
            if session.query.prompt_ids is not None and author != session.prompt_ids_member:
                raise BadRequest(
                    f"the prompt is made of token ids of {session.prompt_ids_member!r}, and "
                    f"{author!r} is to score it; send text",
                    "prompt",
                )
            scored = await session.each(
                lambda member: member.score_prompt(session.unsent(member), top_k), [author]
            )
            if author in scored:
                return scored[author]

    def _sampling(self, session: Session, member: Member, size: int) -> Sampling:
        sampling = session.sampling(
            member, size, temperature=self.config.temperature, top_p=self.config.top_p
        )
        return replace(sampling, top_k=session.query.logprobs or 0)

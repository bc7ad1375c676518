"""A draft: tokens that one member writes ahead of the ensemble, with its row at each."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.token.fusion.request import TokenRequest
from policies.token.fusion.rows import Row
from runtime.errors import ContextOverflow
from runtime.rng import END
from runtime.session.member import Member
from runtime.text.pieces import PieceContext
from runtime.vocab.union import NO_KEY


@dataclass(frozen=True, slots=True)
class Drafted:
    pieces: list[bytes] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    """The drafter's own, before each piece; at least one."""
    after: PieceContext | None = None
    """The drafter's context after its draft, if it may continue from there."""


async def draft(
    request: TokenRequest, member: Member, length: int, since: Drafted | None = None
) -> Drafted:
    """Writes up to ``length`` tokens after the text so far, or after the draft ``since``.

    Raises ``ContextOverflow`` when the window is full.
    """
    name, limit = member.name, member.connection.spec.context_length
    before = len(since.pieces) if since is not None else 0
    start = since.after if since is not None and since.after else request.contexts[name]
    context = start.ids
    if len(context) >= limit:
        raise ContextOverflow(name, len(context), limit)
    length = max(min(length, request.session.tokens_left - before), 1)
    sampling = request.sampling(member, context, request.place + before, length)
    reply = await member.write(context, sampling)
    ids, distributions = list(reply.tokens), reply.top or ()
    pieces: list[bytes] = []
    for key in request.union.map(name)[ids].tolist():
        if key == NO_KEY:  # a control token: other members cannot read it
            break
        pieces.append(request.union.tokens[key])
    # Only rows after a context equal to the member's canonical one count
    # (runtime/text/pieces.py).
    ahead = start.ahead(pieces)
    same = [ahead.base + tail == context + ids[:n] for n, tail in enumerate(ahead.tails)]
    true = same.index(False) if False in same else len(same)
    whole = true > len(pieces) == len(ids) and pieces[-1] != END
    after = start.fork(pieces) if whole and len(context) + len(ids) + 1 < limit else None
    pieces = pieces[: max(true, 1)]
    count = max(len(pieces), 1)
    return Drafted(pieces, [request.row(name, row) for row in distributions[:count]], after)

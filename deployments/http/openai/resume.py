"""Going on with an answer whose connection broke: how far its reader has come, and what is missing.

Chunks of a stream that asked for it (``ensemble.resumable``) carry a ``resume`` id: the trace id,
the seed, and for each choice how many characters were sent and a hash of them. Whoever repeats the
request with it (``ensemble.resume``) gets what came after. The server need have kept nothing for
that: the answer is written again with the same seed, from the newest checkpoint if there is one,
and the hash tells whether it is the same text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from runtime.errors import BadRequest, Diverged

T = TypeVar("T")

MOST_CHOICES: Final = 16
"""Streams with more choices cannot be resumed: each id would be longer than the text with it."""
DIGEST: Final = 6
"""Bytes."""
_ID = re.compile(r"([0-9a-f]{32})\.(\d{1,20})((?:\.\d{1,10}-[0-9a-f]{12}-\d{1,10})+)")
PARAM: Final = "ensemble.resume"
KEY: Final = "idempotency-key"


@dataclass(frozen=True, slots=True)
class Mark:
    """How much of one choice's text was sent."""

    characters: int = 0
    digest: str = hashlib.blake2b(digest_size=DIGEST).hexdigest()
    tokens: int = 0
    """Told with their logprobs."""

    def __str__(self) -> str:
        return f"{self.characters}-{self.digest}-{self.tokens}"


@dataclass(frozen=True, slots=True)
class Past:
    """What a request that is made again says of the first time."""

    trace_id: str
    seed: int
    """Of the first choice, unless the request names one."""
    marks: tuple[Mark, ...] = ()
    """None: nothing of the answer was kept."""


def past_of(
    resume: str | None, idempotency_key: str | None, body: bytes, caller: str | None = None
) -> Past | None:
    """``BadRequest`` for an id that is none of ours.

    An ``Idempotency-Key`` names the answer together with the body and the caller, so two bodies
    under one key are two answers.
    """
    if resume is not None:
        found = _ID.fullmatch(resume)
        if found is None:
            raise BadRequest(
                f"{PARAM} is no id of a chunk of this server; leave it out to begin anew", PARAM
            )
        parts = [part.split("-") for part in found[3].removeprefix(".").split(".")]
        marks = tuple(Mark(int(shown), digest, int(told)) for shown, digest, told in parts)
        return Past(found[1], int(found[2]), marks)
    if idempotency_key:
        named = b"\0".join((repr(caller).encode(), repr(idempotency_key).encode(), body))
        name = hashlib.blake2b(named, digest_size=24).digest()
        return Past(name[:16].hex(), int.from_bytes(name[16:20]) >> 1)
    return None


class Sent:
    """What one stream has sent, and what its reader has from before.

    Raises ``Diverged`` when the text is not the one that the reader has.
    """

    def __init__(
        self, trace_id: str, seed: int, choices: int, past: Sequence[Mark] | None = None
    ) -> None:
        if past and len(past) != choices:
            raise BadRequest(
                f"{PARAM} is of a request with {len(past)} choices, not {choices}", PARAM
            )
        self.resumed = bool(past)
        self._head = f"{trace_id}.{seed}"
        self._had = list(past or [Mark()] * choices)
        self._hashes = [hashlib.blake2b(digest_size=DIGEST) for _ in range(choices)]
        self._counts = [0] * choices
        self._told = [0] * choices

    def untouched(self, index: int) -> bool:
        """Whether the reader has nothing of a choice from before."""
        return self._had[index] == Mark()

    def fresh(self, index: int, text: str) -> str:
        """The part of the next ``text`` that the reader has not got yet."""
        at, had = self._counts[index], self._had[index]
        missing = max(had.characters - at, 0)
        known, new = text[:missing], text[missing:]
        self._add(index, known)
        if known and at + len(known) == had.characters:
            if self._hashes[index].hexdigest() != had.digest:
                raise Diverged(index)
        self._add(index, new)
        return new

    def fresh_tokens(self, index: int, told: Sequence[T]) -> Sequence[T]:
        """Of the next tokens to tell, those that the reader has not got yet."""
        missing = max(self._had[index].tokens - self._told[index], 0)
        self._told[index] += len(told)
        return told[missing:]

    def check_end(self, index: int) -> None:
        """At the end of a choice: its reader cannot have more than there is."""
        if self._counts[index] < self._had[index].characters:
            raise Diverged(index)

    @property
    def id(self) -> str | None:
        """Of the chunk that tells the newest text; ``None`` with too many choices."""
        if len(self._counts) > MOST_CHOICES:
            return None
        return ".".join((self._head, *(str(self._mark(i)) for i in range(len(self._counts)))))

    def _mark(self, index: int) -> Mark:
        """Where the reader is: never before where it was."""
        had, count = self._had[index], self._counts[index]
        told = max(self._told[index], had.tokens)
        if count < had.characters:
            return Mark(had.characters, had.digest, told)
        return Mark(count, self._hashes[index].hexdigest(), told)

    def _add(self, index: int, text: str) -> None:
        self._hashes[index].update(text.encode("utf-8", "surrogatepass"))
        self._counts[index] += len(text)

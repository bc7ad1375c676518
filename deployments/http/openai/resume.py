"""Resumes a stream whose connection broke.

With ``ensemble.resumable`` each chunk carries a ``resume`` id: the trace id, the seed, and for each
choice the number of characters sent and a hash of them. A client that repeats the request with this
id (``ensemble.resume``) receives what came after. The server needs no state for that: it generates
the answer again with the same seed, from the newest checkpoint if there is one, and compares hashes
to detect a different text.
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
"""Streams with more choices cannot be resumed: each id would be longer than its chunk's text."""
DIGEST: Final = 6
"""Bytes."""
_ID = re.compile(r"([0-9a-f]{32})\.(\d{1,20})((?:\.\d{1,10}-[0-9a-f]{12}-\d{1,10})+)")
PARAM: Final = "ensemble.resume"
KEY: Final = "idempotency-key"


@dataclass(frozen=True, slots=True)
class Mark:
    """How much of one choice was sent."""

    characters: int = 0
    digest: str = hashlib.blake2b(digest_size=DIGEST).hexdigest()
    tokens: int = 0
    """Tokens sent with their logprobs."""

    def __str__(self) -> str:
        return f"{self.characters}-{self.digest}-{self.tokens}"


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a repeated request resumes the first one."""

    trace_id: str
    seed: int
    """Seed of the first choice, unless the request names one."""
    marks: tuple[Mark, ...] = ()
    """One for each choice; empty: the client has nothing of the answer."""


def resume_point(
    resume: str | None, idempotency_key: str | None, body: bytes, caller: str | None = None
) -> ResumePoint | None:
    """Where a request resumes; ``None`` for a new one. Raises ``BadRequest`` for an invalid id.

    An ``Idempotency-Key`` identifies the answer together with the body and the caller, so two
    bodies under one key are two answers.
    """
    if resume is not None:
        match = _ID.fullmatch(resume)
        if match is None:
            raise BadRequest(
                f"{PARAM} is not a resume id of this server; leave it out to start a new answer",
                PARAM,
            )
        parts = [part.split("-") for part in match[3].removeprefix(".").split(".")]
        marks = tuple(Mark(int(shown), digest, int(tokens)) for shown, digest, tokens in parts)
        return ResumePoint(match[1], int(match[2]), marks)
    if idempotency_key:
        named = b"\0".join((repr(caller).encode(), repr(idempotency_key).encode(), body))
        name = hashlib.blake2b(named, digest_size=24).digest()
        return ResumePoint(name[:16].hex(), int.from_bytes(name[16:20]) >> 1)
    return None


class Sent:
    """What one stream has sent, and what its client has received before.

    Raises ``Diverged`` when the text differs from what the client has received.
    """

    def __init__(
        self, trace_id: str, seed: int, choices: int, resume_from: Sequence[Mark] | None = None
    ) -> None:
        if resume_from and len(resume_from) != choices:
            raise BadRequest(
                f"{PARAM} belongs to a request with {len(resume_from)} choices, not {choices}",
                PARAM,
            )
        self.resumed = bool(resume_from)
        self._head = f"{trace_id}.{seed}"
        self._received = list(resume_from or [Mark()] * choices)
        self._hashes = [hashlib.blake2b(digest_size=DIGEST) for _ in range(choices)]
        self._counts = [0] * choices
        self._tokens = [0] * choices

    def untouched(self, index: int) -> bool:
        """Whether the client has received nothing of a choice before."""
        return self._received[index] == Mark()

    def fresh(self, index: int, text: str) -> str:
        """The part of the next ``text`` that the client has not received."""
        at, received = self._counts[index], self._received[index]
        missing = max(received.characters - at, 0)
        known, new = text[:missing], text[missing:]
        self._add(index, known)
        if known and at + len(known) == received.characters:
            if self._hashes[index].hexdigest() != received.digest:
                raise Diverged(index)
        self._add(index, new)
        return new

    def fresh_tokens(self, index: int, tokens: Sequence[T]) -> Sequence[T]:
        """The part of the next ``tokens`` that the client has not received."""
        missing = max(self._received[index].tokens - self._tokens[index], 0)
        self._tokens[index] += len(tokens)
        return tokens[missing:]

    def check_end(self, index: int) -> None:
        """Raises ``Diverged`` when a choice ends before the text that the client has received."""
        if self._counts[index] < self._received[index].characters:
            raise Diverged(index)

    @property
    def id(self) -> str | None:
        """The resume id after the newest text; ``None`` with more than ``MOST_CHOICES`` choices."""
        if len(self._counts) > MOST_CHOICES:
            return None
        return ".".join((self._head, *(str(self._mark(i)) for i in range(len(self._counts)))))

    def _mark(self, index: int) -> Mark:
        """The client's position in a choice; it never moves back."""
        received, count = self._received[index], self._counts[index]
        tokens = max(self._tokens[index], received.tokens)
        if count < received.characters:
            return Mark(received.characters, received.digest, tokens)
        return Mark(count, self._hashes[index].hexdigest(), tokens)

    def _add(self, index: int, text: str) -> None:
        self._hashes[index].update(text.encode("utf-8", "surrogatepass"))
        self._counts[index] += len(text)

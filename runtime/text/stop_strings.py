"""Stop strings in streamed text."""

from __future__ import annotations

from collections.abc import Sequence


def find_stop(text: str, stops: Sequence[str], start: int) -> int | None:
    """The start of the earliest stop string that ends after offset ``start``; ``None`` without."""
    offsets = []
    for stop in stops:
        at = text.find(stop, max(0, start - len(stop) + 1))
        if at >= 0:
            offsets.append(at)
    return min(offsets, default=None)


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The part of a complete text before its first stop string."""
    at = find_stop(text, stops, 0)
    return text if at is None else text[:at]


def safe_length(text: str, stops: Sequence[str]) -> int:
    """Number of characters that may be sent: all but a tail that may become a stop string."""
    held = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), held, -1):
            if text.endswith(stop[:size]):
                held = size
                break
    return len(text) - held

"""How the best of several is chosen: values within a tolerance are equal, content breaks the tie.

Values come from models that compute in float32, and equal ones are common: one step reached by two
ways, a bare end that is worth what its chain is worth. Their last bit depends on the batch they
were computed in. So two values count as equal when they agree to six significant digits, and among
equals a total order over the content of the candidates decides. It never depends on which of them
arrived first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T")

TOLERANCE: Final = 1e-6
"""Relative difference up to which two values count as equal; float32 resolves 1.2e-7."""


def less(low: float, high: float) -> bool:
    """Whether ``low`` is below ``high`` by more than the tolerance."""
    return low < high - TOLERANCE * max(abs(low), abs(high))


def first(items: Iterable[T], value: Callable[[T], float], order: Callable[[T], Any]) -> T:
    """The item of the highest value; of all that equal it, the least in ``order``.

    ``order`` must distinguish all items by their content. Raises ``ValueError`` without items.
    """
    return _pop(_keyed(items, value, order))


def ranked(items: Iterable[T], value: Callable[[T], float], order: Callable[[T], Any]) -> list[T]:
    """All items, best first: each is the ``first`` of those not yet placed."""
    left = _keyed(items, value, order)
    return [_pop(left) for _ in range(len(left))]


def place(name: str, members: Sequence[str]) -> tuple[int, str]:
    """Sorts members in their configured order, unknown names after them."""
    return (members.index(name) if name in members else len(members), name)


def _keyed(
    items: Iterable[T], value: Callable[[T], float], order: Callable[[T], Any]
) -> list[tuple[float, Any, T]]:
    """Items with value and order, highest value first."""
    keyed = [(value(item), order(item), item) for item in items]
    return sorted(keyed, key=lambda entry: -entry[0])


def _pop(left: list[tuple[float, Any, T]]) -> T:
    """Removes the first item of a list sorted by value."""
    if not left:
        raise ValueError("no item to choose from")
    highest = left[0][0]
    equal = 0
    while equal < len(left) and not less(left[equal][0], highest):
        equal += 1
    chosen = min(range(equal), key=lambda index: left[index][1])
    return left.pop(chosen)[2]

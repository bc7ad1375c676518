"""The nodes of a tree of reasoning steps, and the parameters of its search."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final, Literal

ROOT: Final = 0

Backpropagation = Literal["optimistic", "standard"]
Rank = Literal["last", "min", "product"]
"""The value of a whole answer: the reward of its last step, of its worst, or the product."""


@dataclass(slots=True)
class Node:
    """A step, and the end of the path of steps that leads to it."""

    id: int
    parent: int
    """-1 for the root, which is no step."""
    depth: int
    text: str = ""
    authors: list[str] = field(default_factory=list)
    """The members that wrote this step here, in order of arrival."""
    reward: float = 0.0
    """The reward of the path with this step, in [0, 1]; constant."""
    value: float = 0.0
    """v: the reward at first, then updated by backpropagation."""
    visits: int = 0
    """N: visits, the creation included."""
    finished: bool = False
    """The answer ends with this step."""
    final: bool = False
    """It ended with its author's EOS."""
    tried: list[str] = field(default_factory=list)
    """Members that have continued from here; each at most once."""
    children: list[int] = field(default_factory=list)


FIELDS: Final = tuple(one.name for one in fields(Node))


@dataclass(frozen=True, slots=True)
class Rules:
    """Parameters of the search."""

    exploration: float = 0.5
    """C of the upper confidence bound."""
    n_child: int = 1
    """Most children of a node."""
    epsilon: float = 0.01
    """A node with a child less than this below its own value is searched deeper, not wider."""
    max_depth: int = 16
    """Most steps in an answer."""
    backpropagation: Backpropagation = "optimistic"

"""Token sequences by their beginnings: a radix tree of which no sequence begins another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

V = TypeVar("V")


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Number of leading ids that two int64 arrays share."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    first = int(differs.argmax()) if n else 0
    return first if n and differs[first] else n


@dataclass(eq=False, slots=True)
class Node(Generic[V]):
    """The end of an edge. Leaves hold values; inner nodes have two children or more."""

    label: np.ndarray
    """int64 [n]: the ids on the way from the parent."""
    parent: Node[V] | None = None
    value: V | None = None
    children: dict[int, Node[V]] = field(default_factory=dict)
    """By the first id of their labels."""


class RadixTree(Generic[V]):
    """A lookup takes time in the length of the sequence, not in the number of those held."""

    def __init__(self) -> None:
        self._root: Node[V] = Node(np.empty(0, dtype=np.int64))

    def longest(self, ids: np.ndarray) -> tuple[V | None, int]:
        """The value of a sequence that shares the most leading ids, and how many those are."""
        node, done, inside = self._walk(ids)
        done += inside
        if done == 0:
            return None, 0
        if inside:
            node = node.children[int(ids[done - inside])]
        while node.children:
            node = next(iter(node.children.values()))
        return node.value, done

    def add(self, ids: np.ndarray, value: V) -> Node[V]:
        """Takes a sequence in; none that is held may begin it, or begin with it."""
        node, done, inside = self._walk(ids)
        if inside:
            node = self._split(node.children[int(ids[done])], inside)
            done += inside
        leaf = Node(ids[done:], node, value)
        node.children[int(ids[done])] = leaf
        return leaf

    def remove(self, leaf: Node[V]) -> None:
        """Takes out what ``add`` returned."""
        parent = leaf.parent
        assert parent is not None, "the leaf is in no tree"
        del parent.children[int(leaf.label[0])]
        leaf.parent = None
        if parent.parent is not None and len(parent.children) == 1:
            [only] = parent.children.values()
            only.label = np.concatenate((parent.label, only.label))
            only.parent = parent.parent
            parent.parent.children[int(only.label[0])] = only

    def _walk(self, ids: np.ndarray) -> tuple[Node[V], int, int]:
        """The last node whose whole way from the root ``ids`` follow, the length of that way, and
        how many ids more lie on the edge to one of its children."""
        node, done = self._root, 0
        while done < len(ids):
            child = node.children.get(int(ids[done]))
            if child is None:
                break
            shared = common_prefix(child.label, ids[done:])
            if shared < len(child.label):
                return node, done, shared
            node, done = child, done + shared
        return node, done, 0

    def _split(self, child: Node[V], at: int) -> Node[V]:
        """Puts a node on the edge that leads to ``child``."""
        parent = child.parent
        assert parent is not None
        middle: Node[V] = Node(child.label[:at], parent)
        parent.children[int(child.label[0])] = middle
        child.label, child.parent = child.label[at:], middle
        middle.children[int(child.label[0])] = child
        return middle

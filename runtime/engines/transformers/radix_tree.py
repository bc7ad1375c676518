"""A radix tree of token sequences, none of which is a prefix of another."""

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
    """int64 [n]: the ids on the edge from the parent."""
    parent: Node[V] | None = None
    value: V | None = None
    children: dict[int, Node[V]] = field(default_factory=dict)
    """By the first id of the child's label."""


class RadixTree(Generic[V]):
    """A lookup takes time linear in the sequence's length, independent of the number of entries."""

    def __init__(self) -> None:
        self._root: Node[V] = Node(np.empty(0, dtype=np.int64))

    def longest(self, ids: np.ndarray) -> tuple[V | None, int]:
        """The value of a sequence with the longest common prefix, and the prefix's length."""
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
        """Adds a sequence; neither it nor any entry may be a prefix of the other."""
        node, done, inside = self._walk(ids)
        if inside:
            node = self._split(node.children[int(ids[done])], inside)
            done += inside
        leaf = Node(ids[done:], node, value)
        node.children[int(ids[done])] = leaf
        return leaf

    def remove(self, leaf: Node[V]) -> None:
        """Removes a leaf that ``add`` returned."""
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
        """The deepest node on the path of ``ids``, its depth in ids, and the number of further ids
        that match the edge to one of its children."""
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
        """Inserts a node after the first ``at`` ids of the edge to ``child``."""
        parent = child.parent
        assert parent is not None
        middle: Node[V] = Node(child.label[:at], parent)
        parent.children[int(child.label[0])] = middle
        child.label, child.parent = child.label[at:], middle
        middle.children[int(child.label[0])] = child
        return middle

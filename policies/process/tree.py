"""A tree of reasoning steps and the arithmetic of searching it. Pure: no model, no clock, no IO.

Selection, expansion rules and backpropagation of LE-MCTS (arXiv 2412.15797); where its pseudo-code
leaves a gap, ``policies/process/le_mcts.py`` says how it is closed and why.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from policies.process.ranking import first, less, place, ranked

ROOT: Final = 0

Backpropagation = Literal["optimistic", "standard"]
Rank = Literal["last", "min", "product"]
"""What a whole answer is worth: the reward of its last step, of its worst, or all multiplied."""


@dataclass(slots=True)
class Node:
    """A step, and with it the path of steps that leads to it."""

    id: int
    parent: int
    """-1 for the root, which is no step."""
    depth: int
    text: str = ""
    authors: list[str] = field(default_factory=list)
    """Who wrote this step here, the first writer first."""
    reward: float = 0.0
    """What the reward model says of the path with this step, in [0, 1]; fixed."""
    value: float = 0.0
    """v: begins as the reward, then moves with what is found below."""
    visits: int = 0
    """N: how often the search came by, its own making included."""
    finished: bool = False
    """The answer ends with this step."""
    final: bool = False
    """It ended with its author's EOS."""
    tried: list[str] = field(default_factory=list)
    """Members that were asked to go on from here; none is asked twice."""
    children: list[int] = field(default_factory=list)


_FIELDS: Final = tuple(one.name for one in fields(Node))


@dataclass(frozen=True, slots=True)
class Rules:
    """What bounds the tree."""

    exploration: float = 0.5
    """C of the upper confidence bound."""
    n_child: int = 1
    """Most children of a node."""
    epsilon: float = 0.01
    """A node with a child less than this below its own value is searched deeper, not wider."""
    max_depth: int = 16
    """Most steps in an answer."""
    backpropagation: Backpropagation = "optimistic"


class Tree:
    """Nodes by number; what is being expanded right now is kept next to them.

    ``members``: all members in their configured order. Wherever the best of several is chosen,
    values that agree to six significant digits are equal (``policies/process/ranking.py``); then
    more visits win, then the author who comes first in ``members``, then the lesser text.
    """

    def __init__(self, nodes: Sequence[Node] = (), members: Sequence[str] = ()) -> None:
        self.nodes = list(nodes) or [Node(ROOT, -1, 0)]
        self._members = tuple(members)
        self._asked: dict[int, list[str]] = {}
        """Node -> members that are writing its next step now."""

    # -- looking -----------------------------------------------------------------------------

    def path(self, node: int) -> list[Node]:
        """The steps from the first to this one; empty for the root."""
        steps = []
        while node != ROOT:
            steps.append(self.nodes[node])
            node = self.nodes[node].parent
        return steps[::-1]

    def text(self, node: int) -> str:
        return "".join(step.text for step in self.path(node))

    def worth(self, end: Node, rank: Rank) -> float:
        """Of the answer that ends with a step."""
        rewards = [step.reward for step in self.path(end.id)]
        if rank == "last":
            return rewards[-1]
        return min(rewards) if rank == "min" else math.prod(rewards)

    def finished(self, rank: Rank = "last") -> list[Node]:
        """Ends of whole answers, best first."""
        ends = [node for node in self.nodes if node.finished]
        return ranked(ends, lambda node: self.worth(node, rank), self._path_order)

    def best(self, rank: Rank = "last") -> Node:
        """The end of the best whole answer; without any, of the best beginning: highest value,
        then the longest, then as for all ties. The root when there is nothing at all."""
        ends = self.finished(rank)
        if ends:
            return ends[0]
        begun = self.nodes[1:] or self.nodes
        return first(
            begun, lambda node: node.value, lambda node: (-node.depth, self._path_order(node))
        )

    def _order(self, node: Node) -> tuple[Any, ...]:
        """Breaks ties between steps after one node: more visits, then the author who comes first
        in the configuration, then the text."""
        return (-node.visits, *self._content(node))

    def _path_order(self, node: Node) -> tuple[Any, ...]:
        """The same for whole paths, which are compared step by step."""
        return (-node.visits, [self._content(step) for step in self.path(node.id)])

    def _content(self, node: Node) -> tuple[Any, ...]:
        author = min((place(name, self._members) for name in node.authors), default=(0, ""))
        return (author, node.text, node.final)

    # -- searching ---------------------------------------------------------------------------

    def select(self, members: Sequence[str], rules: Rules) -> int | None:
        """The node to expand next: from the root down by the upper confidence bound, until one is
        not fully expanded. ``None`` when nothing can be expanded (now)."""
        open_below = self._open_below(members, rules)
        node = self.nodes[ROOT]
        while node.id in open_below:
            deeper = [self.nodes[i] for i in node.children if i in open_below]
            if self._expandable(node, members, rules) and not self._deep_enough(
                node, deeper, rules
            ):
                return node.id
            if not deeper:
                return node.id
            node = self._best_bound(deeper, node, rules)
        return None

    def _best_bound(self, children: Sequence[Node], parent: Node, rules: Rules) -> Node:
        return first(children, lambda child: self.bound(child, parent, rules), self._order)

    def writer(self, node: int, members: Sequence[str], seed: int) -> str:
        """A random member that was not asked here yet: drawn from the seed, the text so far and how
        many were asked, so that a search that moved to another process draws the same."""
        left = [name for name in members if name not in self._busy(self.nodes[node])]
        drawn = f"{seed}/{len(members) - len(left)}/{self.text(node)}".encode()
        digest = hashlib.blake2b(drawn, digest_size=8).digest()
        return left[int.from_bytes(digest, "big") % len(left)]

    def likely(self, node: int) -> str:
        """A step that may well be written next after a node: the best that somebody else wrote
        there, else the newest so deep in the tree, which often begins alike."""
        children = self.nodes[node].children
        if children:
            steps = [self.nodes[child] for child in children]
            return first(steps, lambda step: step.reward, self._order).text
        depth = self.nodes[node].depth + 1
        return next((other.text for other in reversed(self.nodes) if other.depth == depth), "")

    def bound(self, child: Node, parent: Node, rules: Rules) -> float:
        """U = v + C sqrt(ln N_parent / N). A step being written somewhere below counts as a visit
        that found nothing, so that others look elsewhere meanwhile (virtual loss)."""
        waiting, above = self._waiting(child.id), self._waiting(parent.id)
        visits = child.visits + waiting
        value = child.value * child.visits / visits
        return value + rules.exploration * math.sqrt(math.log(parent.visits + above) / visits)

    def _open_below(self, members: Sequence[str], rules: Rules) -> set[int]:
        """Nodes with something to expand: they themselves, or some node below."""
        found: set[int] = set()
        for node in reversed(self.nodes):  # children come after their parents
            below = any(child in found for child in node.children)
            if below or self._expandable(node, members, rules):
                found.add(node.id)
        return found

    def _expandable(self, node: Node, members: Sequence[str], rules: Rules) -> bool:
        busy = self._busy(node)
        return (
            not node.finished
            and node.depth < rules.max_depth
            and len(node.children) + len(self._asked.get(node.id, ())) < rules.n_child
            and any(name not in busy for name in members)
        )

    def _deep_enough(self, node: Node, deeper: Sequence[Node], rules: Rules) -> bool:
        """Rule (ii) of full expansion: a child that can still be searched is nearly as good."""
        if node.id == ROOT or not deeper:
            return False
        return less(node.value, max(child.value for child in deeper) + rules.epsilon)

    def _busy(self, node: Node) -> list[str]:
        return [*node.tried, *self._asked.get(node.id, ())]

    def _waiting(self, node: int) -> int:
        """How many steps are being written below a node, or at it."""
        return sum(
            len(names) for at, names in self._asked.items() if node == at or self._above(node, at)
        )

    def _above(self, node: int, below: int) -> bool:
        while below != ROOT:
            below = self.nodes[below].parent
            if below == node:
                return True
        return False

    # -- growing -----------------------------------------------------------------------------

    def ask(self, node: int, member: str) -> None:
        """A member begins to write the next step of a node."""
        self._asked.setdefault(node, []).append(member)

    def give_up(self, node: int, member: str, tried: bool = True) -> None:
        """It has nothing to add there; not ``tried``: it could not be asked."""
        self._asked[node].remove(member)
        if not self._asked[node]:
            del self._asked[node]
        if tried:
            self.nodes[node].tried.append(member)

    def twin(self, node: int, text: str, final: bool) -> Node | None:
        """The child with just this step, if another member wrote it before."""
        for child in self.nodes[node].children:
            if self.nodes[child].text == text and self.nodes[child].final == final:
                return self.nodes[child]
        return None

    def again(self, child: Node, member: str, rules: Rules) -> None:
        """Another member wrote a step that is there: one more visit to it, no new node."""
        self.give_up(child.parent, member)
        child.authors.append(member)
        child.visits += 1
        self._tell(child.parent, child.reward, rules)

    def grow(
        self,
        parent: int,
        member: str,
        text: str,
        reward: float,
        rules: Rules,
        *,
        finished: bool = False,
        final: bool = False,
    ) -> Node:
        """Adds a step with its reward, and tells all nodes above."""
        self.give_up(parent, member)
        node = Node(
            id=len(self.nodes),
            parent=parent,
            depth=self.nodes[parent].depth + 1,
            text=text,
            authors=[member],
            reward=reward,
            value=reward,
            visits=1,
            finished=finished,
            final=final,
        )
        self.nodes.append(node)
        self.nodes[parent].children.append(node.id)
        self._tell(parent, reward, rules)
        return node

    def _tell(self, node: int, reward: float, rules: Rules) -> None:
        """Backpropagation from a node to the root. Optimistic: each node moves towards its best
        child; standard: towards the new reward."""
        while node >= ROOT:
            above = self.nodes[node]
            above.visits += 1
            if rules.backpropagation == "optimistic":
                found = max(self.nodes[child].value for child in above.children)
            else:
                found = reward
            above.value += (found - above.value) / above.visits
            node = above.parent

    # -- travelling --------------------------------------------------------------------------

    def dump(self) -> list[dict[str, Any]]:
        """The nodes as JSON values, shared with the tree; what was being written is asked for again
        by whoever goes on."""
        return [{name: getattr(node, name) for name in _FIELDS} for node in self.nodes]

    @classmethod
    def load(cls, nodes: str | Sequence[Mapping[str, Any]], members: Sequence[str] = ()) -> Tree:
        """The tree that ``dump`` gave, as values or as JSON text."""
        values = json.loads(nodes) if isinstance(nodes, str) else nodes
        return cls([Node(**node) for node in values], members)

    def __iter__(self) -> Iterator[Node]:
        """All steps, in the order in which they were found."""
        return iter(self.nodes[1:])

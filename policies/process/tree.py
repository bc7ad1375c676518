"""A tree of reasoning steps and its search arithmetic. Pure: no model, no clock, no IO.

Selection, expansion rules and backpropagation of LE-MCTS (arXiv 2412.15797);
``policies/process/le_mcts.py`` says how gaps in its pseudo-code are resolved.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policies.process.node import FIELDS, ROOT, Node, Rank, Rules
from policies.process.ranking import first, less, place, ranked


class Tree:
    """Nodes by number, and the expansions in progress.

    ``members``: all members in their configured order. Wherever the best of several is chosen,
    values that agree to six significant digits are equal (``policies/process/ranking.py``); then
    more visits win, then the author who comes first in ``members``, then the lesser text.
    """

    def __init__(self, nodes: Sequence[Node] = (), members: Sequence[str] = ()) -> None:
        self.nodes = list(nodes) or [Node(ROOT, -1, 0)]
        self._members = tuple(members)
        self._pending: dict[int, list[str]] = {}
        """node -> members that are writing its next step"""

    def path(self, node: int) -> list[Node]:
        """The steps from the first to this one; empty for the root."""
        steps = []
        while node != ROOT:
            steps.append(self.nodes[node])
            node = self.nodes[node].parent
        return steps[::-1]

    def text(self, node: int) -> str:
        return "".join(step.text for step in self.path(node))

    def answer_value(self, end: Node, rank: Rank) -> float:
        """The value of the answer that ends with a step."""
        rewards = [step.reward for step in self.path(end.id)]
        if rank == "last":
            return rewards[-1]
        return min(rewards) if rank == "min" else math.prod(rewards)

    def finished(self, rank: Rank = "last") -> list[Node]:
        """Ends of whole answers, best first."""
        ends = [node for node in self.nodes if node.finished]
        return ranked(ends, lambda node: self.answer_value(node, rank), self._path_order)

    def best(self, rank: Rank = "last") -> Node:
        """The end of the best whole answer; without any, of the best incomplete path: highest
        value, then the longest, then as for all ties. The root when the tree is empty."""
        ends = self.finished(rank)
        if ends:
            return ends[0]
        incomplete = self.nodes[1:] or self.nodes
        return first(
            incomplete, lambda node: node.value, lambda node: (-node.depth, self._path_order(node))
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

    def select(self, members: Sequence[str], rules: Rules) -> int | None:
        """The node to expand next: descends from the root by the upper confidence bound to the
        first that is not fully expanded. ``None`` when nothing can be expanded at the moment."""
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
        """A random member that has not written here yet, drawn from the seed, the text so far and
        the number of those that have, so that a search resumed in another process draws the
        same."""
        left = [name for name in members if name not in self._busy(self.nodes[node])]
        drawn = f"{seed}/{len(members) - len(left)}/{self.text(node)}".encode()
        digest = hashlib.blake2b(drawn, digest_size=8).digest()
        return left[int.from_bytes(digest, "big") % len(left)]

    def likely(self, node: int) -> str:
        """A likely next step after a node: the best that another member wrote there, else the
        newest of the same depth, which often begins alike."""
        children = self.nodes[node].children
        if children:
            steps = [self.nodes[child] for child in children]
            return first(steps, lambda step: step.reward, self._order).text
        depth = self.nodes[node].depth + 1
        return next((other.text for other in reversed(self.nodes) if other.depth == depth), "")

    def bound(self, child: Node, parent: Node, rules: Rules) -> float:
        """U = v + C sqrt(ln N_parent / N). A step being written below counts as a visit without
        reward (virtual loss), so that concurrent expansions differ."""
        waiting, above = self._waiting(child.id), self._waiting(parent.id)
        visits = child.visits + waiting
        value = child.value * child.visits / visits
        return value + rules.exploration * math.sqrt(math.log(parent.visits + above) / visits)

    def _open_below(self, members: Sequence[str], rules: Rules) -> set[int]:
        """Nodes that can be expanded themselves or have such a node below."""
        opened: set[int] = set()
        for node in reversed(self.nodes):  # children come after their parents
            below = any(child in opened for child in node.children)
            if below or self._expandable(node, members, rules):
                opened.add(node.id)
        return opened

    def _expandable(self, node: Node, members: Sequence[str], rules: Rules) -> bool:
        busy = self._busy(node)
        return (
            not node.finished
            and node.depth < rules.max_depth
            and len(node.children) + len(self._pending.get(node.id, ())) < rules.n_child
            and any(name not in busy for name in members)
        )

    def _deep_enough(self, node: Node, deeper: Sequence[Node], rules: Rules) -> bool:
        """Rule (ii) of full expansion: a child that can be searched is less than epsilon worse."""
        if node.id == ROOT or not deeper:
            return False
        return less(node.value, max(child.value for child in deeper) + rules.epsilon)

    def _busy(self, node: Node) -> list[str]:
        return [*node.tried, *self._pending.get(node.id, ())]

    def _waiting(self, node: int) -> int:
        """The number of steps being written at a node or below it."""
        return sum(
            len(names) for at, names in self._pending.items() if node == at or self._above(node, at)
        )

    def _above(self, node: int, below: int) -> bool:
        while below != ROOT:
            below = self.nodes[below].parent
            if below == node:
                return True
        return False

    def begin(self, node: int, member: str) -> None:
        """Records that a member writes the next step of a node."""
        self._pending.setdefault(node, []).append(member)

    def abandon(self, node: int, member: str, tried: bool = True) -> None:
        """Ends what ``begin`` recorded; with ``tried`` false the member may write there later."""
        self._pending[node].remove(member)
        if not self._pending[node]:
            del self._pending[node]
        if tried:
            self.nodes[node].tried.append(member)

    def find(self, node: int, text: str, final: bool) -> Node | None:
        """The child with this text and ``final``, or ``None``."""
        for child in self.nodes[node].children:
            if self.nodes[child].text == text and self.nodes[child].final == final:
                return self.nodes[child]
        return None

    def revisit(self, child: Node, member: str, rules: Rules) -> None:
        """Another member wrote an existing step: one more visit to it, no new node."""
        self.abandon(child.parent, member)
        child.authors.append(member)
        child.visits += 1
        self._backpropagate(child.parent, child.reward, rules)

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
        """Adds a step with its reward and updates all nodes above."""
        self.abandon(parent, member)
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
        self._backpropagate(parent, reward, rules)
        return node

    def _backpropagate(self, node: int, reward: float, rules: Rules) -> None:
        """From a node to the root. Optimistic: each node moves towards its best child; standard:
        towards the new reward."""
        while node >= ROOT:
            above = self.nodes[node]
            above.visits += 1
            if rules.backpropagation == "optimistic":
                target = max(self.nodes[child].value for child in above.children)
            else:
                target = reward
            above.value += (target - above.value) / above.visits
            node = above.parent

    def dump(self) -> list[dict[str, Any]]:
        """The nodes as JSON values, shared with the tree. Expansions in progress are not stored; a
        resumed search begins them again."""
        return [{name: getattr(node, name) for name in FIELDS} for node in self.nodes]

    @classmethod
    def load(cls, nodes: str | Sequence[Mapping[str, Any]], members: Sequence[str] = ()) -> Tree:
        """The tree of a ``dump``, as values or as JSON text."""
        values = json.loads(nodes) if isinstance(nodes, str) else nodes
        return cls([Node(**node) for node in values], members)

    def __iter__(self) -> Iterator[Node]:
        """All steps, in the order in which they were added."""
        return iter(self.nodes[1:])

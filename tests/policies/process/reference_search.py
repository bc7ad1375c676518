"""A slow reference of LE-MCTS, written by recursion from the paper and the method's docstring."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policies.process.node import ROOT, Rank, Rules
from policies.process.tree import Tree

MEMBERS = ("zoe", "adam", "mia")


@dataclass
class World:
    """What each member writes after a text and what the judge says of it: drawn from a seed. Texts
    and rewards are few, so that equal steps and equal values are common."""

    seed: int

    def step(self, path: str, member: str) -> tuple[str, float, bool] | None:
        rng = random.Random(f"{self.seed}/{path}/{member}")
        if rng.random() < 0.08:
            return None
        text = rng.choice("pqrs") + "\n"
        judged = random.Random(f"{self.seed}/{path}/{text}")
        return text, judged.randrange(1, 6) / 6, judged.random() < 0.25


@dataclass
class Slow:
    """A node of the reference: all that ever came to it, and its children by text."""

    text: str = ""
    reward: float = 0.0
    finished: bool = False
    authors: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    gains: list[float | None] = field(default_factory=list)
    """What each visit brought; nothing for another author of the same step."""
    children: dict[str, Slow] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The mean of what visits brought, others leaving it as it was."""
        mean, count = 0.0, 0
        for gain in self.gains:
            count += 1
            mean = mean if gain is None else (mean * (count - 1) + gain) / count
        return mean


def better(one: tuple[float, Any], two: tuple[float, Any]) -> bool:
    """(value, order): the higher value, of equal ones the lesser order."""
    (value, order), (other, against) = one, two
    if math.isclose(value, other, rel_tol=1e-6):
        return bool(order < against)
    return value > other


def champion(nodes: Sequence[tuple[float, Any, Any]]) -> Any:
    """The one that is better than all others."""
    for value, order, node in nodes:
        rest = [(v, o) for v, o, other in nodes if other is not node]
        if all(better((value, order), one) for one in rest):
            return node
    raise AssertionError("equality within the tolerance is not transitive here")


def rank_of(author: str) -> int:
    return MEMBERS.index(author)


def reference(world: World, rules: Rules, rounds: int) -> Slow:
    """The tree after some rounds."""
    root = Slow()

    def can_widen(node: Slow, depth: int) -> bool:
        full = len(node.children) >= rules.n_child or len(node.tried) == len(MEMBERS)
        return not (node.finished or depth >= rules.max_depth or full)

    def alive(node: Slow, depth: int) -> bool:
        return can_widen(node, depth) or any(alive(c, depth + 1) for c in node.children.values())

    def descend(path: list[Slow]) -> list[Slow] | None:
        node, depth = path[-1], len(path) - 1
        deeper = [c for c in node.children.values() if alive(c, depth + 1)]
        near = False
        if deeper and depth > 0:
            wanted = max(c.value for c in deeper) + rules.epsilon
            near = node.value < wanted and not math.isclose(node.value, wanted, rel_tol=1e-6)
        if can_widen(node, depth) and not near:
            return path
        if not deeper:
            return path if alive(node, depth) else None
        scale = math.log(len(node.gains))
        bounds = [
            (
                c.value + rules.exploration * (scale / len(c.gains)) ** 0.5,
                (-len(c.gains), min(map(rank_of, c.authors)), c.text),
                c,
            )
            for c in deeper
        ]
        return descend([*path, champion(bounds)])

    def propagate(path: list[Slow], reward: float) -> None:
        for node in reversed(path):
            optimistic = rules.backpropagation == "optimistic"
            node.gains.append(
                max(c.value for c in node.children.values()) if optimistic else reward
            )

    for _ in range(rounds):
        path = descend([root])
        if path is None:
            break
        node, before = path[-1], "".join(step.text for step in path)
        depth = len(path) - 1
        probe = Tree(members=MEMBERS)  # only to draw the author
        parent = ROOT
        for number, step in enumerate(path[1:]):
            probe.begin(parent, str(number))
            parent = probe.grow(parent, str(number), step.text, 0.0, rules).id
        probe.nodes[parent].tried = list(node.tried)
        author = probe.writer(parent, MEMBERS, world.seed)
        assert depth < rules.max_depth
        node.tried.append(author)
        written = world.step(before, author)
        if written is None:
            continue
        text, reward, finished = written
        reward = float(np.float32(reward))
        if text in node.children:
            node.children[text].authors.append(author)
            node.children[text].gains.append(None)
            reward = node.children[text].reward
        else:
            node.children[text] = Slow(text, reward, finished, [author], gains=[reward])
        propagate(path, reward)
    return root


def slow_shape(node: Slow) -> dict[str, Any]:
    return {
        text: (child.authors, len(child.gains), child.tried, slow_shape(child))
        for text, child in node.children.items()
    }


def slow_answer(root: Slow, rank: Rank) -> str:
    """The text of the best answer, or else of the best beginning."""
    ends: list[tuple[float, Any, str]] = []
    begun: list[tuple[float, Any, str]] = []

    def walk(path: list[Slow]) -> None:
        for child in path[-1].children.values():
            steps = [*path[1:], child]
            rewards = [step.reward for step in steps]
            worth = {"last": rewards[-1], "min": min(rewards), "product": math.prod(rewards)}[rank]
            content = [(min(map(rank_of, step.authors)), step.text) for step in steps]
            text = "".join(step.text for step in steps)
            if child.finished:
                ends.append((worth, (-len(child.gains), content), text))
            begun.append((child.value, (-len(steps), -len(child.gains), content), text))
            walk([*path, child])

    walk([root])
    return str(champion(ends or begun)) if begun else ""

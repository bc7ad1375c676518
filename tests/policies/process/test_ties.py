"""Ties: neither the order of arrival nor the last bit of a value changes a choice."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from policies.process.base import Found, Line
from policies.process.beam_search import Beam
from policies.process.beam_search import best as best_beams
from policies.process.best_of import best as best_answer
from policies.process.ranking import less, ranked
from policies.process.tree import ROOT, Rank, Rules, Tree

MEMBERS = ("zoe", "adam", "mia")
TREES = 2400


def shaken(value: float, rng: random.Random) -> float:
    """The value as float32, up to one bit higher or lower."""
    exact = np.float32(value)
    return float(rng.choice((exact, np.nextafter(exact, 2), np.nextafter(exact, -1))))


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


def searched(world: World, rules: Rules, rounds: int, rng: random.Random | None) -> Tree:
    """A search; with ``rng`` the last bit of each reward is at random."""
    tree = Tree(members=MEMBERS)
    for _ in range(rounds):
        node = tree.select(MEMBERS, rules)
        if node is None:
            break
        author = tree.writer(node, MEMBERS, world.seed)
        tree.ask(node, author)
        step = world.step(tree.text(node), author)
        if step is None:
            tree.give_up(node, author)
            continue
        text, reward, finished = step
        if (twin := tree.twin(node, text, False)) is not None:
            tree.again(twin, author, rules)
            continue
        reward = shaken(reward, rng) if rng else float(np.float32(reward))
        tree.grow(node, author, text, reward, rules, finished=finished)
    return tree


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
    """LE-MCTS by recursion, written from the paper and the docstring of the method."""
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
            probe.ask(parent, str(number))
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


def shape(tree: Tree, node: int = ROOT) -> dict[str, Any]:
    """A tree without numbers: text -> authors, visits and what is below."""
    return {
        child.text: (child.authors, child.visits, child.tried, shape(tree, child.id))
        for child in (tree.nodes[number] for number in tree.nodes[node].children)
    }


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


def renumbered(tree: Tree, rng: random.Random) -> Tree:
    """The same tree, as if its steps had arrived in another order."""
    order, ready = [ROOT], list(tree.nodes[ROOT].children)
    while ready:
        order.append(ready.pop(rng.randrange(len(ready))))
        ready += tree.nodes[order[-1]].children
    number = {old: new for new, old in enumerate(order)} | {-1: -1}
    nodes = [
        replace(
            tree.nodes[old],
            id=number[old],
            parent=number[tree.nodes[old].parent],
            children=rng.sample(
                [number[c] for c in tree.nodes[old].children], len(tree.nodes[old].children)
            ),
        )
        for old in order
    ]
    return Tree(nodes, MEMBERS)


def rules_of(seed: int) -> Rules:
    return Rules(
        exploration=(0.0, 0.5, 1.0)[seed % 3],
        n_child=1 + seed % 3,
        epsilon=(0.0, 0.01, 1 / 6)[seed // 3 % 3],
        max_depth=4,
        backpropagation="standard" if seed % 4 == 3 else "optimistic",
    )


def test_trees_and_answers_equal_a_slow_reference_whatever_the_last_bit() -> None:
    rank: Rank
    for seed in range(TREES):
        world, rules, rounds = World(seed), rules_of(seed), 6 + seed % 14
        rank = ("last", "min", "product")[seed % 3]  # type: ignore[assignment]
        expected = reference(world, rules, rounds)
        for rng in (None, random.Random(seed)):
            tree = searched(world, rules, rounds, rng)
            assert shape(tree) == slow_shape(expected), seed
            assert tree.text(tree.best(rank).id) == slow_answer(expected, rank), seed


def test_the_order_of_arrival_changes_no_choice_in_a_tree() -> None:
    for seed in range(TREES):
        rng, rules = random.Random(seed), rules_of(seed)
        tree = searched(World(seed), rules, 6 + seed % 14, None)
        other = renumbered(tree, rng)
        for one in other.nodes[1:]:
            one.reward = shaken(one.reward, rng)
        for rank in ("last", "min", "product"):
            ends = [[t.text(end.id) for end in t.finished(rank)] for t in (tree, other)]  # type: ignore[arg-type]
            assert ends[0] == ends[1]
        assert tree.text(tree.best().id) == other.text(other.best().id)
        chosen, same = tree.select(MEMBERS, rules), other.select(MEMBERS, rules)
        if chosen is None or same is None:
            assert chosen is same
            continue
        assert tree.text(chosen) == other.text(same)
        assert tree.writer(chosen, MEMBERS, seed) == other.writer(same, MEMBERS, seed)
        if tree.nodes[chosen].children:
            assert tree.likely(chosen) == other.likely(same)


def test_equal_steps_go_by_visits_then_by_the_members_order_then_by_text() -> None:
    rules = Rules(n_child=3, max_depth=1)
    tree = Tree(members=MEMBERS)
    for member, text in (("mia", "a\n"), ("adam", "c\n"), ("zoe", "d\n")):
        tree.ask(ROOT, member)
        tree.grow(ROOT, member, text, 0.5, rules, finished=True)
    assert [end.text for end in tree.finished()] == ["d\n", "c\n", "a\n"]
    tree.ask(ROOT, "adam")
    tree.again(tree.nodes[1], "adam", rules)
    assert tree.best().text == "a\n"
    tree.nodes[2].reward = 0.5 + 1e-8
    assert tree.best().text == "a\n"
    tree.nodes[2].reward = 0.5 + 1e-5
    assert tree.best().text == "c\n"


def line(text: str, author: str, value: float) -> Line:
    return Line(text, author, value, False)


@pytest.mark.parametrize("finished", (True, False))
def test_beams_and_whole_answers_are_chosen_alike_in_any_order(finished: bool) -> None:
    rng = random.Random(7)
    lines = [
        (line("b\n", "adam", 0.4), line("x\n", "zoe", 0.9)),
        (line("b\n", "adam", 0.4), line("w\n", "zoe", 0.9)),
        (line("c\n", "zoe", 0.4), line("z\n", "mia", 0.9)),
        (line("a\n", "mia", 0.4), line("a\n", "mia", 0.9)),
        (line("a\n", "mia", 0.4), line("b\n", "mia", 0.6)),
    ]
    wanted = [2, 1, 0, 3, 4]
    for order in itertools.permutations(range(len(lines))):
        chains = [
            (*lines[i][:-1], replace(lines[i][-1], value=shaken(lines[i][-1].value, rng)))
            for i in order
        ]
        texts = ["".join(one.text for one in lines[i]) for i in wanted]
        beams = [Beam(chain, chain[-1].value, finished) for chain in chains]
        assert [beam.text for beam in best_beams(beams, 4, MEMBERS)] == texts[:4]
        answers = [Found(chain, finished) for chain in chains]
        chosen = best_answer(answers, MEMBERS)
        assert "".join(one.text for one in chosen.lines) == texts[0]
    ended = Found((line("poor\n", "mia", 0.1),), True)
    assert (best_answer([*answers, ended], MEMBERS) is ended) == (not finished)
    assert best_answer([], MEMBERS) == Found((), False)


def test_values_are_equal_to_six_digits_at_any_size() -> None:
    for size in (1e-12, 1.0, -1.0, -1e6):
        close, far = size + abs(size) * 2e-7, size + abs(size) * 1e-5
        assert not less(size, close) and not less(close, size)
        assert less(size, far) and not less(far, size)
    assert less(0.0, 1e-30) and not less(0.0, 0.0)
    values = [0.1, 0.3, 0.2]
    assert ranked(values, lambda value: value, lambda value: 0) == [0.3, 0.2, 0.1]

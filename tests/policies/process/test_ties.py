"""Ties: neither the order of arrival nor the last bit of a value changes a choice."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.process.base import Line, SearchResult
from policies.process.beam_search import Beam
from policies.process.beam_search import best as best_beams
from policies.process.best_of import best as best_answer
from policies.process.node import ROOT, Rank, Rules
from policies.process.ranking import less, ranked
from policies.process.tree import Tree
from tests.policies.process.reference_search import (
    MEMBERS,
    World,
    reference,
    slow_answer,
    slow_shape,
)

TREES = 2400


def shaken(value: float, rng: random.Random) -> float:
    """The value as float32, up to one bit higher or lower."""
    exact = np.float32(value)
    return float(rng.choice((exact, np.nextafter(exact, 2), np.nextafter(exact, -1))))


def searched(world: World, rules: Rules, rounds: int, rng: random.Random | None) -> Tree:
    """A search; with ``rng`` the last bit of each reward is at random."""
    tree = Tree(members=MEMBERS)
    for _ in range(rounds):
        node = tree.select(MEMBERS, rules)
        if node is None:
            break
        author = tree.writer(node, MEMBERS, world.seed)
        tree.begin(node, author)
        step = world.step(tree.text(node), author)
        if step is None:
            tree.abandon(node, author)
            continue
        text, reward, finished = step
        if (twin := tree.find(node, text, False)) is not None:
            tree.revisit(twin, author, rules)
            continue
        reward = shaken(reward, rng) if rng else float(np.float32(reward))
        tree.grow(node, author, text, reward, rules, finished=finished)
    return tree


def shape(tree: Tree, node: int = ROOT) -> dict[str, Any]:
    """A tree without numbers: text -> authors, visits and what is below."""
    return {
        child.text: (child.authors, child.visits, child.tried, shape(tree, child.id))
        for child in (tree.nodes[number] for number in tree.nodes[node].children)
    }


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
        rank = ("last", "min", "product")[seed % 3]
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
            ends = [[t.text(end.id) for end in t.finished(rank)] for t in (tree, other)]
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
        tree.begin(ROOT, member)
        tree.grow(ROOT, member, text, 0.5, rules, finished=True)
    assert [end.text for end in tree.finished()] == ["d\n", "c\n", "a\n"]
    tree.begin(ROOT, "adam")
    tree.revisit(tree.nodes[1], "adam", rules)
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
        answers = [SearchResult(chain, finished) for chain in chains]
        chosen = best_answer(answers, MEMBERS)
        assert "".join(one.text for one in chosen.lines) == texts[0]
    ended = SearchResult((line("poor\n", "mia", 0.1),), True)
    assert (best_answer([*answers, ended], MEMBERS) is ended) == (not finished)
    assert best_answer([], MEMBERS) == SearchResult((), False)


def test_values_are_equal_to_six_digits_at_any_size() -> None:
    for size in (1e-12, 1.0, -1.0, -1e6):
        close, far = size + abs(size) * 2e-7, size + abs(size) * 1e-5
        assert not less(size, close) and not less(close, size)
        assert less(size, far) and not less(far, size)
    assert less(0.0, 1e-30) and not less(0.0, 0.0)
    values = [0.1, 0.3, 0.2]
    assert ranked(values, lambda value: value, lambda value: 0) == [0.3, 0.2, 0.1]

"""The search tree: its arithmetic by hand, and what always holds whatever is found."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest

from policies.process.node import ROOT, Node, Rules
from policies.process.tree import Tree

MEMBERS = ("a", "b", "c")
RULES = Rules(exploration=0.5, n_child=3, epsilon=0.01, max_depth=5)


def step(tree: Tree, parent: int, member: str, reward: float, **more: bool) -> Node:
    tree.begin(parent, member)
    text = f"{member} after {parent}\n"
    return tree.grow(parent, member, text, reward, RULES, **more)


def grown(seed: int, rules: Rules, rounds: int, parallel: int = 1) -> Tree:
    """A search in a world where rewards and ends are drawn at random."""
    rng, tree = random.Random(seed), Tree()
    pending: list[tuple[int, str]] = []
    done = 0
    while done < rounds:
        while len(pending) < parallel and done + len(pending) < rounds:
            node = tree.select(MEMBERS, rules)
            if node is None:
                break
            author = tree.writer(node, MEMBERS, seed)
            tree.begin(node, author)
            pending.append((node, author))
        if not pending:
            break
        node, author = pending.pop(rng.randrange(len(pending)))
        done += 1
        kind = rng.random()
        if kind < 0.1:
            tree.abandon(node, author)
        elif kind < 0.2 and tree.nodes[node].children:
            twin = tree.nodes[rng.choice(tree.nodes[node].children)]
            tree.revisit(twin, author, rules)
        else:
            ended = rng.random() < 0.2
            tree.grow(node, author, f"{done}\n", rng.random(), rules, finished=ended)
    return tree


def test_what_is_likely_next_is_a_sibling_or_else_the_newest_so_deep() -> None:
    tree = Tree()
    assert tree.likely(ROOT) == ""
    first = step(tree, ROOT, "a", 0.4)
    best = step(tree, ROOT, "b", 0.8)
    step(tree, ROOT, "c", 0.1)
    assert tree.likely(ROOT) == best.text
    assert tree.likely(first.id) == ""
    step(tree, first.id, "a", 0.9)
    newest = step(tree, first.id, "b", 0.1)
    assert tree.likely(best.id) == newest.text


def test_optimistic_backpropagation_by_hand() -> None:
    tree = Tree()
    first = step(tree, ROOT, "a", 0.4)
    root = tree.nodes[ROOT]
    assert (root.visits, root.value) == (1, 0.4)  # (0 * 0 + 0.4) / 1
    step(tree, ROOT, "b", 0.8)
    assert (root.visits, root.value) == (2, pytest.approx(0.6))  # (0.4 + 0.8) / 2
    step(tree, first.id, "c", 0.9)
    assert (first.visits, first.value) == (2, pytest.approx(0.65))  # (0.4 + 0.9) / 2
    # The root's best child is still the second: (2 * 0.6 + 0.8) / 3.
    assert (root.visits, root.value) == (3, pytest.approx(2.0 / 3))
    step(tree, first.id, "b", 0.1)
    # Optimistic: the worse step leaves its parent's best child at 0.9: (2 * 0.65 + 0.9) / 3.
    assert first.value == pytest.approx(2.2 / 3)
    assert first.reward == 0.4


def test_standard_backpropagation_by_hand() -> None:
    tree, rules = Tree(), replace(RULES, backpropagation="standard")
    tree.begin(ROOT, "a")
    first = tree.grow(ROOT, "a", "one\n", 0.4, rules)
    tree.begin(first.id, "b")
    tree.grow(first.id, "b", "two\n", 0.9, rules)
    tree.begin(first.id, "a")
    tree.grow(first.id, "a", "three\n", 0.1, rules)
    assert first.value == pytest.approx((0.4 + 0.9 + 0.1) / 3)
    assert tree.nodes[ROOT].value == pytest.approx((0.4 + 0.9 + 0.1) / 3)


def test_the_upper_confidence_bound_by_hand() -> None:
    tree = Tree()
    seldom, often = step(tree, ROOT, "a", 0.5), step(tree, ROOT, "b", 0.6)
    step(tree, often.id, "a", 0.6)
    root = tree.nodes[ROOT]
    assert tree.bound(seldom, root, RULES) == pytest.approx(0.5 + 0.5 * math.sqrt(math.log(3)))
    assert tree.bound(often, root, RULES) == pytest.approx(0.6 + 0.5 * math.sqrt(math.log(3) / 2))
    tree.begin(seldom.id, "b")  # being written: counts as a visit without gain, here and above
    expected = 0.5 / 2 + 0.5 * math.sqrt(math.log(4) / 2)
    assert tree.bound(seldom, root, RULES) == pytest.approx(expected)


def test_a_good_child_sends_the_search_deeper_but_never_from_the_root() -> None:
    tree = Tree()
    first = step(tree, ROOT, "a", 0.5)
    assert tree.select(MEMBERS, RULES) == ROOT  # the only child is as good as the root: no matter
    step(tree, ROOT, "b", 0.1)
    step(tree, ROOT, "c", 0.1)
    assert tree.select(MEMBERS, RULES) == first.id
    worse = step(tree, first.id, "a", 0.2)
    assert tree.select(MEMBERS, RULES) == first.id  # 0.2 is far below: wider first
    better = step(tree, first.id, "b", 0.9)
    assert tree.select(MEMBERS, RULES) == better.id  # rule (ii): now deeper, though "c" is left
    step(tree, better.id, "a", 0.95, finished=True)
    assert tree.select(MEMBERS, RULES) == better.id  # an answer is nothing to go deeper into
    assert worse.visits == 1


def test_a_branch_with_nothing_left_is_passed_by() -> None:
    tree, rules = Tree(), replace(RULES, n_child=1)
    end = step(tree, ROOT, "a", 0.9, finished=True)
    assert tree.select(MEMBERS, rules) is None  # the root is full, its child is an answer
    assert tree.select(MEMBERS, RULES) == ROOT
    assert tree.best() is end


def test_members_write_at_most_once_at_a_place_and_in_an_order_of_the_seed() -> None:
    orders = set()
    for seed in range(40):
        tree, order = Tree(), []
        for _ in MEMBERS:
            author = tree.writer(ROOT, MEMBERS, seed)
            tree.begin(ROOT, author)
            tree.abandon(ROOT, author)
            order.append(author)
        assert sorted(order) == sorted(MEMBERS)
        assert tree.select(MEMBERS, RULES) is None
        orders.add(tuple(order))
    assert len(orders) == 6, "every order comes up"


def test_what_could_not_be_written_may_be_written_later() -> None:
    tree = Tree()
    tree.begin(ROOT, "a")
    tree.abandon(ROOT, "a", tried=False)
    assert tree.nodes[ROOT].tried == [] and tree.select(("a",), RULES) == ROOT


def test_the_best_path_is_the_best_end_or_else_the_best_beginning() -> None:
    tree = Tree()
    assert tree.best() is tree.nodes[ROOT] and tree.text(ROOT) == ""
    first = step(tree, ROOT, "a", 0.3)
    second = step(tree, first.id, "b", 0.3)
    assert tree.best() is second  # as good, and longer
    poor = step(tree, ROOT, "c", 0.1, finished=True)
    assert tree.best() is poor  # any whole answer comes before all beginnings
    rich = step(tree, second.id, "c", 0.2, finished=True)
    assert tree.best() is rich
    assert tree.text(rich.id) == first.text + second.text + rich.text
    assert [node.authors for node in tree.path(rich.id)] == [["a"], ["b"], ["c"]]


def test_answers_are_ranked_by_their_last_their_worst_or_all_steps() -> None:
    tree = Tree()
    first = step(tree, ROOT, "a", 0.2)
    late = step(tree, first.id, "a", 0.9, finished=True)
    second = step(tree, ROOT, "b", 0.6)
    even = step(tree, second.id, "a", 0.5, finished=True)
    third = step(tree, ROOT, "c", 0.95)
    strong = step(tree, third.id, "a", 0.45, finished=True)
    assert tree.best() is late
    assert tree.best("min") is even
    assert tree.best("product") is strong  # 0.4275, over 0.3 and 0.18
    assert tree.answer_value(strong, "product") == pytest.approx(0.4275)


@pytest.mark.parametrize("parallel", (1, 4))
@pytest.mark.parametrize("backpropagation", ("optimistic", "standard"))
@pytest.mark.parametrize("seed", range(12))
def test_what_always_holds(seed: int, backpropagation: str, parallel: int) -> None:
    rules = replace(RULES, backpropagation=backpropagation, n_child=2 + seed % 2)  # type: ignore[arg-type]
    tree = grown(seed, rules, 150, parallel)
    reached = {ROOT}
    for node in tree:
        parent = tree.nodes[node.parent]
        assert node.id in parent.children and parent.id in reached, "no node is lost"
        reached.add(node.id)
        assert node.depth == parent.depth + 1 <= rules.max_depth
        assert not parent.finished
        assert 0 <= node.value <= 1 and 0 <= node.reward <= 1
    for node in tree.nodes:
        below = sum(tree.nodes[child].visits for child in node.children)
        own = 0 if node.id == ROOT else len(node.authors)
        assert node.visits == own + below, "a visit is counted on its whole way up"
        assert len(node.children) <= rules.n_child
        assert len(set(node.tried)) == len(node.tried) <= len(MEMBERS)
        written = sum(len(tree.nodes[child].authors) for child in node.children)
        assert written <= len(node.tried)


def test_the_same_seed_gives_the_same_tree_and_another_seed_another() -> None:
    assert grown(3, RULES, 100).dump() == grown(3, RULES, 100).dump()
    assert grown(3, RULES, 100).dump() != grown(4, RULES, 100).dump()


def test_a_tree_survives_json_and_goes_on_as_it_would_have() -> None:
    tree = grown(5, RULES, 60)
    copy = Tree.load(json.loads(json.dumps(tree.dump())))
    assert copy.dump() == tree.dump()
    node = tree.select(MEMBERS, RULES)
    assert node is not None and node == copy.select(MEMBERS, RULES)
    assert tree.writer(node, MEMBERS, 5) == copy.writer(node, MEMBERS, 5)


def test_parallel_steps_are_written_in_different_places() -> None:
    tree = Tree()
    for member, reward in zip(MEMBERS, (0.5, 0.5, 0.5), strict=True):
        step(tree, ROOT, member, reward)
    chosen = set()
    for _ in range(3):
        node = tree.select(MEMBERS, RULES)
        assert node is not None
        tree.begin(node, tree.writer(node, MEMBERS, 0))
        chosen.add(node)
    assert len(chosen) == 3

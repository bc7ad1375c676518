"""EVA's maths on four directions of a plane, and against a slow reference."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from policies.token.eva import EVA, SETS, EVAConfig
from policies.token.numerics import projection as eva
from policies.token.numerics.projection import build, faithful, project, projection
from policies.token.numerics.similarity import Side, best, common_space, nearest
from runtime.config.engines import TableEngine
from runtime.config.members import MemberConfig
from runtime.engines.scripted.models import TableLM
from runtime.session.connection import Connection
from runtime.vocab import table
from tests.support.paths import ROOT

# Source tokens 0-3 point east, north, west, south; 4 north-east and 5 south-west; 6 is control.
SOURCE = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 1], [-1, -1], [9, 9]], dtype=np.float16)
# The pivot knows the first four, as tokens 4, 3, 2, 1, a quarter turn further; 0 is control.
PIVOT = np.array([[9, 9], [1, 0], [0, -1], [-1, 0], [0, 1]], dtype=np.float16)
SAME = np.array([4, 3, 2, 1, -1, -1, -1])


def built(top: int = 10, threshold: float = 0.1, neighbours: int = 1) -> np.ndarray:
    return build(
        Side.of(SOURCE, np.arange(6)),
        Side.of(PIVOT, np.arange(1, 5)),
        SAME,
        {6: 0},
        top=top,
        threshold=threshold,
        neighbours=neighbours,
    ).toarray()


def test_shared_tokens_teach_the_turn_and_others_are_placed_by_it() -> None:
    # All means are 0, so centring changes nothing. The map is the quarter turn; each pivot token
    # has a source token at cosine 1, so similarity = 2 cos - 1: 1 for itself, -1 at right angles,
    # and 2 * 0.7071 - 1 = 0.414 for the two that token 4 (north-east) lies between.
    expected = np.zeros((7, 5))
    expected[[0, 1, 2, 3], [4, 3, 2, 1]] = 1
    expected[4, [4, 3]] = 0.5  # 0.414 each, normalised
    expected[5, [2, 1]] = 0.5
    expected[6, 0] = 1  # a control token stands for itself
    assert built() == pytest.approx(expected)


def test_top_and_threshold_bound_what_a_token_keeps() -> None:
    assert (built(top=1)[4] > 0).sum() == 1
    assert built(threshold=0.5)[4].sum() == 0  # 0.414 is too little
    assert built(threshold=0.5)[0, 4] == 1


def test_more_neighbours_lower_the_bar() -> None:
    # Nearest two of each pivot token: cosines 1 and 0.7071, mean 0.8536. Token 4 now has
    # similarity 1.4142 - 0.8536 = 0.5607 to both of its neighbours.
    assert built(threshold=0.57, neighbours=2)[4].sum() == 0
    assert built(threshold=0.55, neighbours=2)[4] == pytest.approx([0, 0, 0, 0.5, 0.5])


def test_unequal_widths_meet_in_the_smaller_one() -> None:
    rng = np.random.default_rng(0)
    small = rng.normal(size=(200, 8))
    wide = small @ np.linalg.qr(rng.normal(size=(20, 8)))[0].T
    same = rng.permutation(200)
    pivot = np.empty_like(wide)
    pivot[same] = wide
    for source, target, where in ((small, pivot, same), (pivot, small, np.argsort(same))):
        one, other = Side.of(source, np.arange(200)), Side.of(target, np.arange(200))
        left, right = common_space(one, other, where)
        assert left.shape == (source.shape[1], 8)
        assert right.shape == (target.shape[1], 8)
        assert left.T @ left == pytest.approx(np.eye(8), abs=1e-5)
        assert right.T @ right == pytest.approx(np.eye(8), abs=1e-5)
        matrix = build(one, other, where, {}, top=1, threshold=0.1, neighbours=1).toarray()
        assert matrix.argmax(axis=1).tolist() == where.tolist()


def test_equal_widths_are_orthogonal_procrustes() -> None:
    rng = np.random.default_rng(1)
    one, other = (Side.of(rng.normal(size=(60, 5)), np.arange(60)) for _ in range(2))
    left, right = common_space(one, other, np.arange(60))
    ours, theirs = one.directions(np.arange(60)), other.directions(np.arange(60))

    def fit(turn: np.ndarray) -> float:
        return float(((ours @ turn - theirs) ** 2).sum())

    turn = left @ right.T
    assert turn @ turn.T == pytest.approx(np.eye(5), abs=1e-5)
    for _ in range(50):  # no other orthogonal map near it or far from it fits better
        near = np.linalg.qr(turn + 0.05 * rng.normal(size=(5, 5)))[0]
        assert fit(turn) <= fit(near) + 1e-4


def test_a_row_that_holds_nothing_is_dropped() -> None:
    east = np.array([[1.0, 0.0]], dtype=np.float32)
    alike = np.tile(east, (12, 1))
    near = np.full(12, 0.9, dtype=np.float32)  # similarity 2 - 0.9 = 1.1 to all
    assert len(best(east, alike, near, 10, 0.1)[0]) == 0
    assert len(best(east, alike, near, 5, 0.1)[0]) == 5  # not more than 5: kept
    near[:6] -= 0.05  # ten best: six of 1.15, four of 1.1, deviation 0.024
    assert best(east, alike, near, 10, 0.1)[1].tolist() == list(range(10))


@pytest.mark.parametrize(("targets", "top"), [(40, 10), (1700, 10), (1700, 3), (513, 200)])
def test_the_best_are_those_of_a_full_sort(targets: int, top: int) -> None:
    rng = np.random.default_rng(targets)

    def directions(n: int) -> np.ndarray:
        rows = rng.normal(size=(n, 6)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    block, other = directions(30), directions(targets)
    near = nearest(iter([block[:10], block[10:]]), other, 1)
    assert near == pytest.approx((block @ other.T).max(axis=0), abs=1e-6)
    three = np.sort(block @ other.T, axis=0)[-3:].mean(axis=0)
    assert nearest(iter([block[:2], block[2:]]), other, 3) == pytest.approx(three, abs=1e-6)
    places, found, values = best(block, other, near, top, 0.1)
    similarity = 2 * block @ other.T - near
    for row, line in enumerate(similarity):
        order = [i for i in np.argsort(-line, kind="stable")[:top] if line[i] >= 0.1]
        if len(order) > 5 and np.std(line[order]) <= 0.01:
            order = []
        assert found[places == row].tolist() == order
        assert values[places == row] == pytest.approx(line[order], abs=1e-5)


def test_projecting_adds_up_what_tokens_share() -> None:
    matrix = build(
        Side.of(SOURCE, np.arange(6)),
        Side.of(PIVOT, np.arange(1, 5)),
        SAME,
        {6: 0},
        top=10,
        threshold=0.1,
        neighbours=1,
    )
    # 0 east -> 4; 4 north-east -> 4 and 3 half each: 0.5 + 0.3 / 2 = 0.65, 0.3 / 2 = 0.15
    ids, shares = project(matrix, np.array([0, 4, 6]), np.array([0.5, 0.3, 0.2]))
    assert ids.tolist() == [4, 0, 3]
    assert shares == pytest.approx([0.65, 0.2, 0.15])
    empty = build(
        Side.of(SOURCE, np.arange(6)),
        Side.of(PIVOT, np.arange(1, 5)),
        SAME,
        {},
        top=10,
        threshold=0.1,
        neighbours=1,
    )
    ids, shares = project(empty, np.array([6, 1]), np.array([0.75, 0.25]))
    assert (ids.tolist(), shares.tolist()) == ([3], [0.25])  # what has no row is lost


@pytest.mark.parametrize(
    ("tops", "kept"),
    [
        ({"a": [1, 2, 3], "b": [2, 9, 1], "c": [7, 8, 9]}, ["a", "b"]),
        ({"a": [1, 2, 3, 4], "b": [4, 5, 6, 1]}, ["a", "b"]),  # none is faithful: all stay
        ({"a": [5, 6, 7], "b": [8, 5, 9]}, ["a"]),
        ({"a": [1]}, ["a"]),
        ({"a": [], "b": [3], "c": [3]}, ["b", "c"]),
    ],
)
def test_a_member_whose_favourite_no_other_considers_is_left_out(
    tops: dict[str, list[int]], kept: list[str]
) -> None:
    assert faithful({name: np.array(ids, dtype=int) for name, ids in tops.items()}, 3) == kept


async def connection(*words: str) -> Connection:
    engine = TableEngine(vocabulary=words, table={})
    known = Connection(words[0], MemberConfig(engine=engine), TableLM(engine))
    await known.open()
    return known


async def made(source: Connection, pivot: Connection, **settings: int) -> csr_array:
    ours, theirs = await table(source.engine), await table(pivot.engine)
    return await projection(source, ours, pivot, theirs, **settings)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRION_CACHE", str(tmp_path))
    monkeypatch.setattr(eva, "_made", eva.SingleFlight(limit=16))
    return tmp_path


async def test_words_of_two_members_find_each_other(cache: Path) -> None:
    source = await connection(" cat", " dog", " only here")
    pivot = await connection(" dog", " mouse", " cat")
    matrix = await made(source, pivot)
    assert matrix.shape == (source.spec.vocab_size, pivot.spec.vocab_size)
    assert matrix.dtype == np.float32
    rows = matrix.toarray()
    assert rows[0].argmax() == 2
    assert rows[1].argmax() == 0
    for theirs, ours in ((source.spec.eos_ids[0], pivot.spec.eos_ids[0]), (259, 259)):
        assert rows[theirs].nonzero()[0].tolist() == [ours]  # <bos> is 3 + 256 in both
    sums = rows.sum(axis=1)
    assert np.isclose(sums, 1, atol=1e-6)[sums > 0].all()


async def test_a_member_projected_on_itself_keeps_its_own_best_token(cache: Path) -> None:
    own = await connection(" cat", " dog", " mouse")
    matrix = await made(own, own)
    rng = np.random.default_rng(0)
    ids = rng.choice(own.tokenizer.vocab_size, 40, replace=False)
    p = np.sort(rng.dirichlet(np.full(40, 0.2)))[::-1]
    assert project(matrix, ids, p)[0][0] == ids[0]


@pytest.mark.parametrize("harm", [None, "cut", "text", "columns"])
async def test_a_projection_is_kept_and_made_again_when_damaged(
    cache: Path, harm: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, pivot = await connection(" cat", " dog"), await connection(" dog", " cat")
    first = await made(source, pivot)
    assert await made(source, pivot) is first
    (file,) = (cache / "projections").iterdir()
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:500])
    elif harm == "text":
        file.write_text("nothing")
    elif harm == "columns":
        with np.load(file) as arrays:
            kept = {**arrays, "indices": arrays["indices"] + 1000}
        with file.open("wb") as stream:
            np.savez(stream, **kept)
    times = []
    monkeypatch.setattr(eva, "build", lambda *a, **k: times.append(1) or build(*a, **k))
    eva._made.forget()
    again = await made(source, pivot)
    assert len(times) == (0 if harm is None else 1)
    assert np.array_equal(again.toarray(), first.toarray())
    assert len(list((cache / "projections").iterdir())) == 1
    await made(source, pivot, top=3)
    assert len(list((cache / "projections").iterdir())) == 2


async def test_projections_are_at_hand_for_few_sets_of_members(cache: Path) -> None:
    members = {name: await connection(f" {name}", " cat") for name in "abcd"}
    method = EVA(EVAConfig(members=tuple(members)))
    sets = [names for size in (1, 2, 3) for names in combinations(members, size)]
    for names in sets:
        await method.warm({name: members[name] for name in names})
    kept = [names for names in sets if method._sets.kept(names) is not None]
    assert kept == sets[-SETS:]


@pytest.mark.pretrained
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    "ORCHESTRION_LONG_TESTS" not in os.environ,
    reason="takes six minutes or more: set ORCHESTRION_LONG_TESTS=1",
)
def test_a_large_pair_needs_little_memory(tmp_path: Path) -> None:
    """Two products of 15 * 10**12 operations each: minutes on a small computer."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.models.memory_of_large_pair", "projection"],
        cwd=ROOT,
        env={**os.environ, "SCRATCH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 2000

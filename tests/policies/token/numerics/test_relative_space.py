"""DeePEn's maths on two-dimensional embeddings, and against a slow reference with torch."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.token.numerics.relative_space import RelativeSpace, anchors_of, fuse, search
from runtime.tokenization.tokenizer import Tokenizer, vocabulary_tokenizer
from tests.support.paths import ROOT

UP, RIGHT, BETWEEN = [0.0, 2.0], [3.0, 0.0], [1.0, 1.0]


def space(temperature: float = 1.0, cache_mb: int = 256) -> RelativeSpace:
    """main: 0 up, 1 right, 2 between; other the same tokens as 2, 0, 1; anchors: up, right."""
    tables = {
        "main": np.array([UP, RIGHT, BETWEEN], dtype=np.float16),
        "other": np.array([RIGHT, BETWEEN, UP], dtype=np.float16),
    }
    anchors = {"main": np.array([0, 1]), "other": np.array([2, 0])}
    return RelativeSpace(tables, anchors, temperature=temperature, cache_mb=cache_mb)


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_row_is_the_softmax_of_normalised_cosines() -> None:
    # up: cosines (1, 0), length 1, softmax (e, 1) / (e + 1) = (0.7311, 0.2689)
    # between: cosines (0.7071, 0.7071), length 1, softmax (0.5, 0.5)
    rows = space().rows("main", np.array([0, 1, 2]))
    high = logistic(1)
    assert rows == pytest.approx(np.array([[high, 1 - high], [1 - high, high], [0.5, 0.5]]))
    assert rows.dtype == np.float32


def test_the_temperature_multiplies() -> None:
    assert space(3.0).rows("main", np.array([0]))[0] == pytest.approx([logistic(3), logistic(-3)])
    assert space(100.0).rows("main", np.array([0])).sum() == pytest.approx(1)


def test_cosines_are_normalised_over_the_anchors() -> None:
    # Anchors up and up again: cosines of "between" are (0.7071, 0.7071), those of "right" (0, 0).
    table = np.array([UP, RIGHT, [1.0, 2.0]], dtype=np.float16)
    doubled = RelativeSpace({"m": table}, {"m": np.array([0, 0, 1])}, temperature=1.0)
    # [1, 2]: cosines (2, 2, 1) / sqrt(5), length 3 / sqrt(5), so (2, 2, 1) / 3
    shares = np.exp(np.array([2, 2, 1]) / 3)
    assert doubled.rows("m", np.array([2]))[0] == pytest.approx(shares / shares.sum())


def test_the_same_token_has_the_same_row_in_every_member() -> None:
    both = space(100.0)
    ours, theirs = both.rows("main", np.array([0, 1, 2])), both.rows("other", np.array([2, 0, 1]))
    assert ours == pytest.approx(theirs)


def test_a_token_without_a_direction_is_like_all_anchors() -> None:
    table = np.array([UP, RIGHT, [0.0, 0.0]], dtype=np.float16)
    flat = RelativeSpace({"m": table}, {"m": np.array([0, 1])})
    assert flat.rows("m", np.array([2]))[0].tolist() == [0.5, 0.5]


def test_remembered_rows_are_bounded_and_equal_to_fresh_ones() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(500, 8)).astype(np.float16)
    anchors = np.arange(2**10)[:256] % 500
    small = RelativeSpace({"m": table}, {"m": anchors}, cache_mb=1)
    small._limit = 4
    ids = rng.integers(0, 500, 64)
    again = [small.rows("m", np.array([token]))[0] for token in ids]
    whole = small.rows("m", np.concatenate((ids, ids)))
    assert np.allclose(whole[:64], again)
    assert np.array_equal(whole[:64], whole[64:])
    assert small.kept_bytes == 4 * 256 * 4


def test_members_without_common_anchors_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        RelativeSpace({"m": np.eye(2)}, {"m": np.array([], dtype=np.int64)})


def words(*texts: str) -> Tokenizer:
    return Tokenizer(vocabulary_tokenizer(texts))


def test_anchors_are_the_common_tokens_in_one_order() -> None:
    a, b = words("dog", "cat", "x", "mouse"), words("owl", "cat", "mouse", "dog")
    # 4 + 256 and 4 + 256 ids; common: the 256 bytes, of which "x" is a word of a too, and 3 words.
    found = anchors_of({"a": a, "b": b}, None)
    assert len(found["a"]) == len(found["b"]) == 256 + 3
    for ours, theirs in zip(found["a"].tolist(), found["b"].tolist(), strict=True):
        assert a.token_bytes[ours] == b.token_bytes[theirs]
    # Ids of dog: 0 + 3, of cat: 1 + 1, of mouse: 3 + 2 (out of 262 in both).
    best = anchors_of({"b": b, "a": a}, 3)
    assert [a.token_bytes[token] for token in best["a"]] == [b"cat", b"dog", b"mouse"]
    assert best["b"].tolist() == [1, 3, 2]


def test_parts_of_characters_are_the_last_to_be_anchors() -> None:
    both = words("a")
    found = anchors_of({"a": both, "b": both}, None)["a"]
    valid = [bool(both.token_bytes[token].decode(errors="ignore")) for token in found]
    assert valid == sorted(valid, reverse=True)
    assert sum(valid) == 128


def test_one_step_moves_towards_the_mean_by_the_rate() -> None:
    # main (0.6, 0.4) over up and right; other says right for sure; equal weights.
    # A single anchor set of 2 makes gradients far above epsilon, so Adam's first step is the rate.
    logits = np.log([0.6, 0.4])
    found = fuse(
        space(),
        "main",
        {
            "main": (np.array([0, 1]), np.array([0.6, 0.4])),
            "other": (np.array([0]), np.array([1.0])),
        },
        {"main": 1.0, "other": 1.0},
        np.array([0, 1]),
        logits,
        steps=1,
        lr=0.15,
    )
    moved = logits * (1 - 0.15 * 0.01) + [-0.15, 0.15]
    assert found == pytest.approx(moved - np.log(np.exp(moved).sum()), abs=1e-6)


def reference(
    matrix: np.ndarray, target: np.ndarray, start: np.ndarray, steps: int, lr: float
) -> np.ndarray:
    """The published recipe, written with torch's own optimiser."""
    z = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    rows, goal = torch.tensor(matrix, dtype=torch.float64), torch.tensor(target)
    optimiser = torch.optim.AdamW([z], lr=lr, betas=(0.9, 0.999))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=10, eta_min=lr / 4)
    loss = torch.nn.KLDivLoss(reduction="mean")
    for _ in range(steps):
        optimiser.zero_grad()
        loss((torch.softmax(z, -1) @ rows).log()[None], goal[None]).backward()
        optimiser.step()
        scheduler.step()
    return torch.log_softmax(z.detach(), -1).numpy()


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("anchors", [3, 50, 20_000])
@pytest.mark.parametrize(("steps", "lr"), [(1, 0.15), (5, 0.15), (5, 0.4), (10, 0.05)])
def test_the_search_is_adamw_on_the_mean_divergence(anchors: int, steps: int, lr: float) -> None:
    rng = np.random.default_rng(anchors + steps)
    matrix = rng.dirichlet(np.ones(anchors), size=12)
    target = rng.dirichlet(np.ones(12)) @ matrix
    start = np.log(rng.dirichlet(np.full(12, 0.5)) + 1e-9)
    found = search(matrix, target, start, steps=steps, lr=lr)
    assert found == pytest.approx(reference(matrix, target, start, steps, lr), abs=1e-7)
    assert np.exp(found).sum() == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_equal_members_give_the_answer_of_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(300, 16)).astype(np.float16)
    same = RelativeSpace({"a": table, "b": table}, {"a": np.arange(200), "b": np.arange(200)})
    ids = rng.choice(300, 10, replace=False)
    p = rng.dirichlet(np.full(10, 0.3))
    found = fuse(same, "a", {"a": (ids, p), "b": (ids, p)}, {"a": 0.5, "b": 0.5}, ids, np.log(p))
    assert found.argmax() == p.argmax()
    assert found == pytest.approx(np.log(p), abs=1e-6)


def test_weights_are_shares_and_a_silent_member_changes_nothing() -> None:
    members = {
        "main": (np.array([0, 1]), np.array([0.6, 0.4])),
        "other": (np.array([0]), np.array([1.0])),
    }
    candidates, start = np.array([0, 1]), np.log([0.6, 0.4])

    def fused(main: float, other: float) -> np.ndarray:
        return fuse(space(), "main", members, {"main": main, "other": other}, candidates, start)

    assert fused(3.0, 1.0) == pytest.approx(fused(0.75, 0.25))
    alone = fuse(space(), "main", {"main": members["main"]}, {"main": 1.0}, candidates, start)
    assert fused(1.0, 0.0) == pytest.approx(alone)
    assert alone.argmax() == 0
    # Alone, r_other counts: 5 steps of at most 0.15 each turn a lead of log 1.5 = 0.41 around.
    assert fused(0.0, 1.0).argmax() == 1


def test_an_impossible_candidate_stays_impossible() -> None:
    with np.errstate(divide="ignore"):
        start = np.log([0.7, 0.3, 0.0])
    found = fuse(
        space(),
        "main",
        {"main": (np.array([0, 1]), np.array([0.7, 0.3]))},
        {"main": 1.0},
        np.array([0, 1, 2]),
        start,
    )
    assert found[2] == -np.inf
    assert np.exp(found).sum() == pytest.approx(1)


@pytest.mark.pretrained
def test_a_large_pair_needs_little_memory(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.models.memory_of_large_pair", "relative"],
        cwd=ROOT,
        env={**os.environ, "SCRATCH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 2000

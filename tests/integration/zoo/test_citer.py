"""CITER on the zoo, a short training: at the same share it beats random routing, on countries that
the router was not trained on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deployments.launch.backends import InProcessBackends
from deployments.training.citer_setup import PairSetup, load_pair_setup
from envs.token_routing.env import LARGE, SMALL, TokenWorld
from envs.token_routing.preferences import Pair, Round, collect, counts, table_of
from runtime.artifacts.token_router import Router
from runtime.data.questions import read_questions
from tests.support.paths import ROOT
from tests.support.ray_cluster import small_ray

TRAINED_ON, TESTED_ON = 400, 80
MARGIN = 0.2
"""Of accuracy. The novice alone answers about a third, the large one all."""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:.*already in registry"),
    # Ray Data warns of its own defaults.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


@pytest.fixture(scope="module")
def world() -> Iterator[TokenWorld]:
    whole: PairSetup = load_pair_setup(ROOT / "examples" / "train_citer_zoo.yaml")
    setup = whole.limited(TRAINED_ON)
    made = setup.make(InProcessBackends(setup.app))
    with small_ray():
        yield made
    made.close()


Choose = Callable[[np.ndarray], Sequence[int]]


def written(world: TokenWorld, choose: Choose) -> tuple[float, float]:
    """Accuracy over the world's questions and the share of the large member's tokens."""
    places, going = world.begin(world.tasks), list(range(len(world.tasks)))
    while going:
        here = [places[i] for i in going]
        after, _, ended = world.act(here, choose(world.observe(here)))
        for i, place in zip(going, after, strict=True):
            places[i] = place
        going = [i for i, over in zip(going, ended, strict=True) if not over]
    right = float(np.mean([place.quality for place in places]))
    return right, sum(p.large for p in places) / sum(len(p.ids) for p in places)


def test_a_short_training_beats_random_routing(world: TokenWorld, tmp_path: Path) -> None:
    from envs.token_routing.config import PreferenceSettings
    from envs.token_routing.preference_training import train_preferences

    unseen = read_questions(ROOT / "examples/zoo/questions/citer_test.jsonl", TESTED_ON)
    test = replace(world, tasks=unseen)
    pair: Pair = world.members  # type: ignore[assignment]
    settings = PreferenceSettings(epochs=6, dropout=0.5, large_weight=2.0, seed=1)
    router: Router | None = None
    for number in (1, 2):
        round_ = Round(number, router, 0.95, world.most, 0.5)
        table = table_of(collect(pair, world.quality, world.tasks, round_), {})
        result = counts(table)
        assert min(result["case_1"], result["case_2"], result["case_3"]) > 50
        learnt = train_preferences(table, tmp_path, settings)
        assert learnt.metrics["auc"] > 0.9
        router = Router(learnt.layers, "zoo:novice", "citer")
    assert router is not None
    sure = router.confidence

    def routed(seen: np.ndarray) -> list[int]:
        return [SMALL if value >= 0.9 else LARGE for value in sure(seen)]

    accuracy, share = written(test, routed)
    draws = random.Random(0)

    def drawn(seen: np.ndarray) -> list[int]:
        return [LARGE if draws.random() < share else SMALL for _ in seen]

    by_chance, same = written(test, drawn)
    alone, _ = written(test, lambda seen: [SMALL] * len(seen))
    result = f"routed {accuracy:.3f} at {share:.3f}, random {by_chance:.3f} at {same:.3f}"
    print(f"{result}, the novice alone {alone:.3f}")
    assert share < 0.35
    assert accuracy > by_chance + MARGIN and accuracy > alone + MARGIN

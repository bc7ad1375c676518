"""Routers learn what preferences say, by RLlib's cloning, Co-LLM's objective and PPO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.token_routing.co_llm import train_co_llm
from envs.token_routing.config import PreferenceSettings
from envs.token_routing.env import TokenWorld
from envs.token_routing.preference_training import (
    TrainedRouter,
    auc,
    load_trained,
    save_trained,
    train_preferences,
)
from envs.token_routing.preferences import collect, states, table_of
from envs.token_routing.router_net import RouterNet, folded
from envs.training.config import PPOSettings
from runtime.artifacts.token_router import ABOUT, WEIGHTS, Router, load_router
from runtime.errors import ConfigError
from tests.support.models.table_pair import FIRST, QUALITY, TASKS, Pair, world
from tests.support.ray_cluster import small_ray

SETTINGS = PreferenceSettings(rate=0.05, batch=16, epochs=6, patience=6, seed=2)

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:.*already in registry"),
    # Ray Data warns of its own defaults.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


def a_world(config: Any) -> TokenWorld:
    return world()


def test_a_folded_router_computes_what_the_net_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = RouterNet(6, 0.3)
    inputs = torch.randn(200, 6) * 3 + 1
    net.train()
    for _ in range(20):
        net(inputs)  # moves the statistics of the normalisation
    net.eval()
    with torch.inference_mode():
        wanted = net(inputs).sigmoid().numpy()
    Router(folded(net), "m", "citer", {"seed": 0}).save(tmp_path)
    router = load_router(tmp_path)
    assert router.confidence(inputs.numpy()) == pytest.approx(wanted, abs=1e-5)
    assert router.size == 6 and router.about == {"seed": 0}


def test_a_stored_round_is_taken_only_for_the_same_preferences(tmp_path: Path) -> None:
    net = RouterNet(3, 0.0)
    state = {f"net.{name}": value.numpy() for name, value in net.state_dict().items()}
    file = tmp_path / "round_1.safetensors"
    save_trained(TrainedRouter(folded(net), state, {"auc": 0.5}), {"rows": 1}, file)
    again = load_trained({"rows": 1}, file)
    assert again is not None and again.metrics == {"auc": 0.5}
    assert load_trained({"rows": 2}, file) is None
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ConfigError, match="remove it"):
        load_trained({"rows": 1}, file)


def test_half_a_router_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="orchestrion train citer"):
        load_router(tmp_path)
    Router(folded(RouterNet(4, 0.0)), "m", "citer").save(tmp_path)
    version = load_router(tmp_path).version
    other = tmp_path / "other"
    torch.manual_seed(1)
    Router(folded(RouterNet(4, 0.0)), "m", "citer").save(other)
    assert load_router(other).version != version
    (tmp_path / WEIGHTS).write_bytes((other / WEIGHTS).read_bytes())
    with pytest.raises(ConfigError, match="is not the file that router.json means"):
        load_router(tmp_path)
    (tmp_path / ABOUT).write_text('{"format": "x"}')
    with pytest.raises(ConfigError, match="format 'x'"):
        load_router(tmp_path)


def test_auc_of_known_orders() -> None:
    good = np.array([True, True, False, False])
    assert auc(np.array([4.0, 3.0, 2.0, 1.0]), good) == 1.0
    assert auc(np.array([1.0, 4.0, 2.0, 3.0]), good) == 0.5
    assert auc(np.ones(4), good) == 0.5 and auc(np.ones(2), good[:2]) == 0.5


def test_co_llm_defers_where_the_large_member_knows_better() -> None:
    table = table_of(collect(Pair(), QUALITY, TASKS, FIRST), {})
    layers, loss = train_co_llm(table, SETTINGS)
    sure = Router(layers, "m", "co-llm").confidence(states(table))
    case = table["case"].to_numpy()
    assert sure[case == 2].max() < 0.2  # only the large one knows
    assert loss < 0.3


@pytest.mark.ray
@pytest.mark.slow
def test_preferences_and_tuning_learn_to_hand_figures_over(tmp_path: Path) -> None:
    from envs.token_routing.rl_module import RouterModule
    from envs.token_routing.spec import TOKENS
    from envs.training.trainer import Training

    table = table_of(collect(Pair(), QUALITY, TASKS * 8, FIRST), {})
    with small_ray():
        learnt = train_preferences(table, tmp_path, SETTINGS)
        router = Router(learnt.layers, "m", "citer")
        sure, small = router.confidence(states(table)), table["small"].to_numpy()
        assert learnt.metrics["auc"] == 1.0
        assert sure[small == 1].min() > 0.5 > sure[small == 0].max()
        settings = PPOSettings(
            iterations=4, batch=256, minibatch=64, environments=8, rate=1e-3, gamma=1.0, seed=1
        )
        run = Training(settings, a_world, tmp_path / "run", {}, every=2, spec=TOKENS)
        try:
            state = run.module.get_state()
            run.load(state | {k: v for k, v in learnt.state.items() if k.startswith("net.")})
            run.run(lambda result: None)
            assert isinstance(run.module, RouterModule)
            tuned = Router(folded(run.module.net), "m", "citer")
            assert run.curve[-1].reward > 0.7  # all right and two tokens of the large one's
        finally:
            run.close()
        sure = tuned.confidence(states(table))
        assert sure[small == 1].min() > 0.5 > sure[small == 0].max()

"""The oracle's routes and the fixed ones, on members that echo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.config.app_config import AppConfig
from deployments.evaluation.route_baselines import route_rows
from deployments.evaluation.runner import Row
from deployments.launch.in_process import LocalStack
from runtime.config.evaluation import EvaluationConfig
from runtime.data.questions import Question
from runtime.errors import ConfigError
from tests.support.http.ensembles import served
from tests.support.models.agents import agent, by_calls, config

QUESTIONS = [Question("q", "q"), Question("q", "q / q"), Question("q", "nothing says this")]


def app(folder: Path) -> AppConfig:
    agent(by_calls(0, 1, 2)).save(folder)
    result = config(folder, der={}, all={"type": "fixed-route"})
    result["members"] = {
        name: {"engine": {"type": "echo"}, "price": {"input": price, "output": price}}
        for name, price in (("a", 1.0), ("b", 3.0))
    }
    return AppConfig.model_validate(result)


def evaluation_config(**fields: Any) -> EvaluationConfig:
    result = {"questions": "-", "answer_pattern": r"^(.*)$", "routes": {"ensemble": "der"} | fields}
    return EvaluationConfig.model_validate(result)


async def rows(
    folder: Path, evaluation: EvaluationConfig, own: list[Row]
) -> dict[str, dict[str, Any]]:
    settings = app(folder)
    stack = LocalStack(settings)
    try:
        with served(stack.api()) as url:
            result = await route_rows(f"{url}/v1", settings, QUESTIONS, evaluation, own)
    finally:
        await stack.close()
    return {row.name: vars_of(row) for row in result}


def vars_of(row: Row) -> dict[str, Any]:
    return json.loads(json.dumps({name: getattr(row, name) for name in row.__slots__}))


async def test_the_oracle_finds_the_cheapest_right_route(tmp_path: Path) -> None:
    found = await rows(tmp_path, evaluation_config(), [])
    oracle = found["oracle"]
    assert oracle["accuracy"] == pytest.approx(2 / 3)
    # one call by "a"; two by "a"; and where no route is right, the cheapest call
    assert oracle["calls"] == 1 + 2 + 1
    assert oracle["cost"] < found["fixed, any: a"]["cost"] * 2


async def test_fixed_routes_are_held_to_the_ensembles_cost(tmp_path: Path) -> None:
    free = await rows(tmp_path, evaluation_config(), [])
    dearest = max(row["cost"] for row in free.values())
    poor = Row("der", "ensemble", 0.0, 0, 0, cost=0.0, seconds=0.0)
    rich = Row("der", "ensemble", 0.0, 0, 0, cost=dearest, seconds=0.0)
    none = await rows(tmp_path, evaluation_config(), [poor])
    some = await rows(tmp_path, evaluation_config(), [rich])
    assert not [name for name in none if name.startswith("fixed, no dearer")]
    # "q" is right for a single call, "q / q" for two: all routes answer one question in three
    assert "fixed, no dearer: a" in some


async def test_an_ensemble_without_routes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'a' is no ensemble"):
        await rows(tmp_path, evaluation_config(ensemble="a"), [])

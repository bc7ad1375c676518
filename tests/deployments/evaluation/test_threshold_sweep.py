"""A request's own threshold, over HTTP; and the curves that a sweep of thresholds gives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from deployments.config.app_config import AppConfig
from deployments.evaluation import threshold_sweep
from deployments.evaluation.runner import Row, compare
from deployments.launch.in_process import LocalStack
from runtime.config.evaluation import EvaluationConfig, SweepConfig
from runtime.data.questions import Question
from runtime.errors import ConfigError
from tests.support.http.ensembles import served
from tests.support.models.deferral_pair import by, config


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    stack = LocalStack(AppConfig.model_validate(config(m=by("margin", 0.5))))
    with served(stack.api()) as base:
        yield f"{base}/v1"
    asyncio.run(stack.close())


def summary_of(url: str, model: str, **options: Any) -> dict[str, Any]:
    with OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        reply = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Who?"}],
            extra_body={"ensemble": options},
        )
    found: dict[str, Any] = (reply.model_extra or {})["ensemble"]
    return found


def test_a_request_names_its_threshold(url: str) -> None:
    assert summary_of(url, "m")["tokens"] == {"small": 2, "large": 3}
    reply = summary_of(url, "m", threshold=1.0)
    assert reply["threshold"] == 1.0 and reply["tokens"]["small"] == 0


def test_a_model_that_hands_nothing_over_has_no_threshold(url: str) -> None:
    with pytest.raises(BadRequestError, match="model 'small' does not support threshold"):
        summary_of(url, "small", threshold=0.5)
    with pytest.raises(BadRequestError, match="threshold"):
        summary_of(url, "m", threshold=1.5)


WISH = EvaluationConfig(
    questions="q",
    answer_pattern=r"(.+)",
    models=("small", "large"),
    sweep=SweepConfig(large="large", thresholds={"m": (0.1, 0.5)}, shares=(0.25, 0.5)),
)


def test_a_sweep_asks_at_every_threshold(url: str, tmp_path: Path) -> None:
    questions = [Question("Who?", "the dog ran")]
    rows = asyncio.run(compare(url, questions, WISH))
    assert [row.name for row in rows] == ["small", "large", "m @ 0.1", "m @ 0.5"]
    assert [row.handed_over for row in rows[2:]] == [pytest.approx(3 / 9), pytest.approx(3 / 5)]
    curves = threshold_sweep.curves(rows, WISH)
    assert curves["m"].accuracies[-1] == 1.0
    threshold_sweep.draw(curves, tmp_path / "c.svg")
    assert "accuracy" in (tmp_path / "c.svg").read_text()


def test_a_sweep_without_both_members_is_refused_before_anything_is_called(url: str) -> None:
    wrong = WISH.model_copy(update={"models": ("m",)})
    with pytest.raises(ConfigError, match="list exactly these two members"):
        asyncio.run(compare(url, [Question("Who?", "the dog ran")], wrong))


def test_curves_by_hand() -> None:
    def row(name: str, kind: str, accuracy: float, **more: Any) -> Row:
        return Row(name, kind, accuracy, 0, 0, 0.0, 0.0, **more)

    rows = [
        row("small", "member", 0.2),
        row("large", "member", 1.0),
        row("m @ 0.5", "ensemble", 0.9, threshold=0.5, handed_over=0.4),
        row("m @ 0.1", "ensemble", 0.6, threshold=0.1, handed_over=0.2),
    ]
    curve = threshold_sweep.curves(rows, WISH)["m"]
    assert curve.shares == (0.0, 0.2, 0.4, 1.0)
    assert curve.at(0.1) == pytest.approx(0.4) and curve.at(0.3) == pytest.approx(0.75)
    assert curve.share_for(0.75) == pytest.approx(0.3)
    assert curve.share_for(0.1) == 0.0 and curve.share_for(0.95) == pytest.approx(0.7)

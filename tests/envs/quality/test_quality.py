"""Qualities of answers, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import TypeAdapter, ValidationError

from envs.quality.build import build_quality
from envs.quality.config import ExactMatchConfig, QualityConfig, RewardModelConfig, TokenF1Config
from envs.quality.text_match import ExactMatch, TokenF1
from runtime.data.questions import Question
from runtime.errors import ConfigError
from runtime.rewards.base import Reasoning


def tasks(*answers: str) -> list[Question]:
    return [Question("?", answer) for answer in answers]


def test_exact_match_minds_neither_case_nor_space_nor_a_full_stop() -> None:
    judge = ExactMatch(ExactMatchConfig())
    assert judge.judge(["  New  york.", "York"], tasks("New York", "New York")) == [1.0, 0.0]


def test_exact_match_reads_where_the_pattern_says() -> None:
    judge = ExactMatch(ExactMatchConfig(pattern=r"Answer: (.*)$"))
    answers = ["It was\nAnswer: 3\nno,\nAnswer: 4", "4", "Answer: 3"]
    assert judge.judge(answers, tasks(*["4"] * 3)) == [1.0, 0.0, 0.0]


def test_token_f1() -> None:
    judge = TokenF1(TokenF1Config())
    values = judge.judge(
        ["The cat sat.", "a dog", "", "cat cat"], tasks("cat sat down", "the dog", "", "cat")
    )
    assert values == [pytest.approx(2 * 2 / 5), 1.0, 1.0, pytest.approx(2 / 3)]
    assert judge.judge(["nothing"], tasks("at all")) == [0.0]


@pytest.mark.parametrize("pattern", ["Answer: .*", "("])
def test_a_pattern_that_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        ExactMatchConfig(pattern=pattern)
    with pytest.raises(ValidationError, match="pattern"):
        TokenF1Config(pattern=pattern)


def test_the_type_chooses() -> None:
    config = TypeAdapter(QualityConfig).validate_python({"type": "token-f1"})
    assert isinstance(build_quality(config), TokenF1)
    assert isinstance(build_quality(ExactMatchConfig()), ExactMatch)


def test_a_reward_model_judges_the_last_line() -> None:
    seen: list[Reasoning] = []

    def judge(chains: Sequence[Reasoning]) -> list[float]:
        seen.extend(chains)
        return [0.25 * len(chain.steps) for chain in chains]

    quality = build_quality(RewardModelConfig(reward="prm"), judge)
    request = [Question("one", ""), Question("two", ""), Question("three", "")]
    assert quality.judge(["a\n\n b \n", "  ", "c"], request) == [0.5, 0.0, 0.25]
    assert seen == [Reasoning("one", ("a", "b"), 1), Reasoning("three", ("c",), 0)]
    with pytest.raises(ConfigError, match="prm"):
        build_quality(RewardModelConfig(reward="prm"))

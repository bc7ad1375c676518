"""Reading answers and counting who wrote what."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from deployments.config.app_config import AppConfig
from deployments.evaluation.runner import as_json, compare, fact_authors, table, wilson
from deployments.launch.in_process import LocalStack
from runtime.config.evaluation import EvaluationConfig
from runtime.data.grading import answers_match, extract_answer
from runtime.data.questions import Question, read_questions
from runtime.errors import ConfigError
from tests.support.http.ensembles import served
from tests.support.local_stack import animals

PATTERN = r"Answer:\s*(.+?)\s*$"


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("Paris is in France.\nAnswer: euro", "euro"),
        ("Answer: no\nAnswer: yes ", "yes"),
        ("I do not know", None),
        ("", None),
    ],
)
def test_the_last_answer_line_counts(text: str, given: str | None) -> None:
    assert extract_answer(text, PATTERN) == given


@pytest.mark.parametrize(
    ("given", "wanted", "same"),
    [("Euro.", "euro", True), ("new  zealand", "New Zealand", True), ("franc", "euro", False)],
)
def test_case_space_and_a_full_stop_do_not_matter(given: str, wanted: str, same: bool) -> None:
    assert answers_match(given, wanted) is same
    assert not answers_match(None, wanted)


def test_the_interval_of_an_accuracy_is_wilsons() -> None:
    # (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with z = 1.96, by hand
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 16) == pytest.approx((0.0, 0.1936), abs=1e-4)
    assert wilson(16, 16) == pytest.approx((0.8064, 1.0), abs=1e-4)
    assert wilson(0, 0) is None


def test_a_facts_author_is_who_wrote_the_end_of_its_line() -> None:
    text = "Paris is the capital of France.\nThe currency of France is the euro.\nAnswer: euro"
    at = text.index(" euro.")
    spans = [
        {"start": 0, "end": 31, "model": "capitals"},
        {"start": 31, "end": at, "model": "languages"},
        {"start": at, "end": len(text), "model": "currencies"},
    ]
    question = Question("?", "euro", relations=("country", "currency"))
    assert fact_authors(question, text, spans) == ["capitals", "currencies"]


def test_bad_question_files_are_reported_by_line(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n{"question": "a"}\n')
    with pytest.raises(ConfigError, match="q.jsonl:2"):
        read_questions(path)
    with pytest.raises(ConfigError, match="--questions"):
        read_questions(tmp_path / "absent.jsonl")


def test_every_model_gets_a_row_with_the_documented_keys() -> None:
    config = animals(e={"type": "sweetspan", "span_words": 1})
    for member in config["members"].values():
        member["price"] = {"input": 1, "output": 1}
    stack = LocalStack(AppConfig.model_validate(config))
    request = EvaluationConfig(questions="-", answer_pattern=r"the (\w+)", concurrency=4)
    questions = [Question("Who?", "dog"), Question("Who now?", "cat")]
    with served(stack.api()) as url:
        rows = asyncio.run(compare(f"{url}/v1", questions, request))
    asyncio.run(stack.close())
    result = {row["name"]: row for row in json.loads(as_json(rows))["rows"]}
    assert list(result) == ["e", "cat", "dog"]
    assert result["e"]["kind"] == "ensemble"
    assert result["cat"]["kind"] == "member"
    assert [result[name]["accuracy"] for name in result] == [0.5, 0.5, 0.5]
    for row in result.values():
        assert row["accuracy_interval"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
        assert row["calls"] > 0
        assert row["tokens"] > 0
        assert row["cost"] > 0
        assert row["seconds"] > 0
        assert sum(row["share"].values()) == pytest.approx(1)
    assert result["cat"]["share"] == {"cat": 1.0}
    assert table(rows).row_count == 3

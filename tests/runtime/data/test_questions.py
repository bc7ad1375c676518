"""Files of questions: what is wrong is reported with file, line and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.data.questions import Question, read_questions
from runtime.errors import ConfigError

GOOD = b'{"question": "a", "answer": "b"}\n'


def test_rows_are_read_whatever_separators_their_texts_hold(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    second = '\n{"question": "a\u2028\x85b", "answer": ""}\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + second.encode())
    assert read_questions(path) == [Question("a", "b"), Question("a\u2028\x85b", "")]
    assert read_questions(path, 1) == [Question("a", "b")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{nope", "JSON object"),
        (b"null", "JSON object"),
        (b"[" * 20_000, "JSON object"),
        (b'{"question": 1, "answer": "b"}', "question is missing or no string"),
        (b'{"question": "a"}', "answer is missing"),
        (b'{"question": "a", "answer": "b", "steps": "abc"}', "steps must be a list of strings"),
        (b'{"question": "a", "answer": "b", "steps": [1]}', "steps must be a list of strings"),
        (b'{"question": "a", "answer": "b", "reference": 3}', "reference must be a string"),
        (b'{"question": "\xe4", "answer": "b"}', "save the file as UTF-8"),
    ],
)
def test_a_line_that_is_no_question_is_reported(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(GOOD + line)
    with pytest.raises(ConfigError, match=rf"q\.jsonl:2: .*{message}"):
        read_questions(path)


def test_an_empty_file_and_a_folder_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\n \n")
    with pytest.raises(ConfigError, match="holds no questions"):
        read_questions(path)
    with pytest.raises(ConfigError, match="Is a directory; give|Is a directory.*; give"):
        read_questions(tmp_path)

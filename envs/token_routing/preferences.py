"""CITER's preference data (arXiv 2502.01976): the preferred member at each token of a reference.

Both members read the text (teacher forcing, one pass each instead of one call for every token):

1. the small member's greedy token is the text's: it is preferred;
2. only the large one's is: the large one is preferred;
3. neither's is: the small one's token stands, the answer is written to its end, and the small one
   is preferred if that comes out right. In the first round the small member writes on alone, later
   rounds with the router of the round before.

The text continues with its own token, whatever was preferred.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from envs.quality.base import Quality
from envs.token_routing.model_pair import TeacherForced
from runtime.artifacts.token_router import Router
from runtime.data.questions import Question
from runtime.errors import ConfigError
from runtime.types.outputs import Tokens

ABOUT = b"orchestrion"
COLUMNS = pa.schema(
    [
        ("question", pa.string()),
        ("group", pa.string()),
        ("place", pa.int32()),
        ("state", pa.list_(pa.float32())),
        ("small", pa.int8()),
        ("case", pa.int8()),
        ("round", pa.int8()),
        ("token", pa.int32()),
        ("small_token", pa.int32()),
        ("large_token", pa.int32()),
        ("small_logprob", pa.float32()),
        ("large_logprob", pa.float32()),
    ]
)
"""``state``: the small member's before the token. ``small``: 1 where it is preferred.
``small_logprob``, ``large_logprob``: of the text's token."""


class Pair(Protocol):
    """The interface to two members (envs/token_routing/model_pair.py)."""

    def encode(self, text: str) -> tuple[int, ...]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def teacher_force(
        self, questions: Sequence[str], texts: Sequence[Tokens]
    ) -> list[TeacherForced | None]: ...

    def write_on(
        self,
        questions: Sequence[str],
        answers: Sequence[Tokens],
        router: Router | None,
        threshold: float,
        most: int,
    ) -> list[tuple[int, ...] | None]: ...


@dataclass(frozen=True, slots=True)
class Round:
    """How the third case is judged."""

    number: int
    router: Router | None
    threshold: float
    most: int
    """Tokens of an answer."""
    good: float
    """Quality from which an answer counts as right."""


def collect(
    pair: Pair, quality: Quality, tasks: Sequence[Question], round_: Round
) -> list[dict[str, Any]]:
    """Rows of ``COLUMNS``. A question at which a member failed is left out, as is a place whose
    answer could not be written to its end."""
    questions = [task.question for task in tasks]
    texts = [pair.encode(text_of(task)) for task in tasks]
    rows: list[dict[str, Any]] = []
    open_: list[tuple[dict[str, Any], Question, tuple[int, ...]]] = []
    for task, ids, forced in zip(tasks, texts, pair.teacher_force(questions, texts), strict=True):
        if forced is None:
            continue
        for place, token in enumerate(ids):
            case = 1 if forced.small[place] == token else 2 if forced.large[place] == token else 3
            row = {
                "question": task.question,
                "group": task.group or task.question,
                "place": place,
                "state": forced.states[place],
                "small": int(case == 1),
                "case": case,
                "round": round_.number,
                "token": token,
                "small_token": forced.small[place],
                "large_token": forced.large[place],
                "small_logprob": forced.small_logprobs[place],
                "large_logprob": forced.large_logprobs[place],
            }
            if case == 3:
                open_.append((row, task, (*ids[:place], forced.small[place])))
            else:
                rows.append(row)
    if open_:
        rows += _judged(pair, quality, open_, round_)
    return rows


def _judged(
    pair: Pair,
    quality: Quality,
    open_: Sequence[tuple[dict[str, Any], Question, tuple[int, ...]]],
    round_: Round,
) -> list[dict[str, Any]]:
    ends = pair.write_on(
        [task.question for _, task, _ in open_],
        [begun for *_, begun in open_],
        round_.router,
        round_.threshold,
        round_.most,
    )
    ended = [
        (row, task, pair.decode(end))
        for (row, task, _), end in zip(open_, ends, strict=True)
        if end is not None
    ]
    values = quality.judge([text for *_, text in ended], [task for _, task, _ in ended])
    return [
        {**row, "small": int(value >= round_.good)}
        for (row, *_), value in zip(ended, values, strict=True)
    ]


def text_of(task: Question) -> str:
    """The reference text for teacher forcing. Raises ``ConfigError`` without one."""
    if task.reference is None:
        raise ConfigError(
            f"the question {task.question!r} has no reference; token-level routing is trained on "
            'reference texts: give each line a "reference"'
        )
    return task.reference


def table_of(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> pa.Table:
    """With ``about``: where the rows come from."""
    columns = {name: [row[name] for row in rows] for name in COLUMNS.names}
    metadata = {ABOUT: json.dumps(about, sort_keys=True)}
    return pa.table(columns, schema=COLUMNS.with_metadata(metadata))


def write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    pq.write_table(table, draft)
    draft.replace(path)


def read(path: Path, about: Mapping[str, Any]) -> pa.Table | None:
    """A stored table with the same ``about``; ``None`` if there is none.
    Raises ``ConfigError`` for a file that is damaged."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        known = json.loads((table.schema.metadata or {}).get(ABOUT, b"{}"))
    except (OSError, pa.ArrowException, ValueError) as fault:
        raise ConfigError(f"{path} is damaged ({fault}); remove it to collect it again") from None
    return table if known == json.loads(json.dumps(about)) else None


def states(table: pa.Table) -> np.ndarray:
    """float32 ``[n, width]``."""
    column = table["state"].combine_chunks()
    width = len(column[0]) if len(column) else 0
    flat: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), width).astype(np.float32)


def left_out(table: pa.Table, tasks: Sequence[Question]) -> list[str]:
    """Questions that have no rows, or not one for each token."""
    rows: dict[str, int] = {}
    last: dict[str, int] = {}
    pairs = zip(table["question"].to_pylist(), table["place"].to_pylist(), strict=True)
    for question, place in pairs:
        rows[question] = rows.get(question, 0) + 1
        last[question] = max(last.get(question, 0), place)
    names = dict.fromkeys(task.question for task in tasks)
    return [name for name in names if rows.get(name, 0) <= last.get(name, 0)]


def counts(table: pa.Table) -> dict[str, int]:
    """Rows of each case, and those that prefer the small member."""
    case = table["case"].to_numpy()
    by_case = {f"case_{number}": int((case == number).sum()) for number in (1, 2, 3)}
    return by_case | {"small": int(table["small"].to_numpy().sum())}

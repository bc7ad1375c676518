"""Members that are lost while an answer is written: both loops go on alike without them."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from runtime.config.engines import TableEngine
from runtime.engines.scripted.fault_injection import FlakyLM
from runtime.engines.scripted.models import TableLM
from tests.support.local_stack import CAT, DOG, WORDS, Answer, ask
from tests.support.models.fusion_methods import METHODS

COW: dict[str, Any] = {
    "type": "table",
    "vocabulary": [" th", "e", " co", "w", " cat", " sat", " ran", " ra"],
    "table": {
        **WORDS,
        "": {" th": 1},
        " th": {"e": 1},
        " the": {" co": 3, " cat": 2},
        " co": {"w": 1},
        " cow": {" ran": 2, " sat": 3},
        " cat": {" ra": 3, " sat": 2},
        " dog": {" sat": 1},
        " ra": {"n": 1},
        ".": {" th": 3, "<eos>": 1},
    },
}
OWL: dict[str, Any] = {
    "type": "table",
    "vocabulary": [" the", " o", "wl", " do", " dog", " cow", " s", "at", "."],
    "table": {
        "": {" the": 1},
        " the": {" dog": 2, " cow": 2, " o": 1},
        " o": {"wl": 1},
        " dog": {" s": 1},
        " cow": {" s": 1, ".": 1},
        " cat": {" s": 2, ".": 1},
        " s": {"at": 1},
        " sat": {".": 1},
        " ran": {".": 1},
        ".": {" the": 1},
    },
}
PROMPT = " the cat sat. the cow ran. the dog sat. the cat ran. the"
TABLES = {"cat": CAT, "dog": DOG, "cow": COW, "owl": OWL}


class Mortal(FlakyLM):
    """Dies at a call that is said later, more than once."""

    def dies_at(self, call: int | None) -> None:
        self._calls, self._fails_from = 0, call


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_both_loops_go_on_alike_without_a_lost_member(
    method: str, temperature: float
) -> None:
    """The plain loop calls more often; so there the member dies at the call that loses it at the
    token at which the drafted loop did."""
    engines = {n: Mortal(TableLM(TableEngine.model_validate(t))) for n, t in TABLES.items()}
    members = {name: {"engine": table, "retries": 0} for name, table in TABLES.items()}
    loops = {"drafted": METHODS[method], "plain": {**METHODS[method], "draft": 0}}
    ensembles = {name: {"members": list(TABLES), **fields} for name, fields in loops.items()}
    config = AppConfig.model_validate({"members": members, "ensembles": ensembles})
    stack = LocalStack(config, engines)

    async def without(loop: str, lost: str, call: int) -> tuple[int, Answer]:
        """The token at which the member is lost, -1 if it is not, and the answer."""
        engines[lost].dies_at(call)
        sampling = {"temperature": temperature, "seed": 3, "max_tokens": 10, "ignore_eos": True}
        answer = await ask(stack, loop, prompt=PROMPT, messages=(), **sampling)
        return answer.member(lost).get("dropped_at_step", -1), answer

    for loop in loops:  # only its first answer asks for embeddings
        await without(loop, "cat", 1000)
    compared = 0
    for lost in ("cat", "cow"):
        for call in range(3, 9):
            step, drafted = await without("drafted", lost, call)
            if step != 0:
                break
        call, (at, plain) = 1, await without("plain", lost, 1)
        while 0 <= at < step:  # where a gate is sure, the next token at which others are called
            call += 1
            at, plain = await without("plain", lost, call)
        engines[lost].dies_at(None)
        if step > 0:
            assert at >= step and drafted.text == plain.text, (lost, step, at)
            compared += 1
    await stack.close()
    assert compared

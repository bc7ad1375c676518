"""vLLM's settings, checked where vLLM is not installed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from runtime.config import vllm_args
from runtime.config.engines import VllmEngine
from runtime.config.members import MemberConfig


def engine(**settings: Any) -> VllmEngine:
    return VllmEngine.model_validate({"weights": "zoo:large"} | settings)


def test_any_argument_of_vllm_is_taken_under_its_own_name() -> None:
    config = engine(max_num_batched_tokens=512, async_scheduling=False, dtype="float16")
    assert config.engine_args == {"max_num_batched_tokens": 512, "async_scheduling": False}
    assert config.dtype == "float16"


def test_an_unknown_argument_is_refused_at_its_own_place() -> None:
    with pytest.raises(ValidationError) as caught:
        engine(max_model_length=512)
    [error] = caught.value.errors()
    assert (error["type"], error["loc"]) == ("extra_forbidden", ("max_model_length",))


@pytest.mark.parametrize(("name", "expected"), [*vllm_args.OURS.items(), *vllm_args.SET.items()])
def test_an_argument_that_is_not_the_users_names_what_is(name: str, expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        engine(**{name: 1})
    assert expected in str(caught.value)


def test_sizes_may_be_written_for_people() -> None:
    assert engine(kv_cache_memory_bytes="2GiB").kv_cache_memory_bytes == 2 * 2**30
    assert engine(kv_cache_memory_bytes=4096).kv_cache_memory_bytes == 4096


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": "float8"},
        {"max_model_len": 0},
        {"gpu_memory_utilization": 1.5},
        {"tensor_parallel_size": 0},
        {"scheduling_policy": "lifo"},
        {"embedding": "yes"},
        {"kv_cache_memory_bytes": "much"},
    ],
)
def test_values_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        engine(**wrong)


def test_settings_survive_the_way_to_a_replica() -> None:
    member = MemberConfig.model_validate(
        {"engine": {"type": "vllm", "weights": "zoo:large", "max_num_batched_tokens": 512}}
    )
    again = MemberConfig.model_validate_json(member.model_dump_json())
    assert again == member
    assert isinstance(again.engine, VllmEngine)
    assert again.engine.engine_args == {"max_num_batched_tokens": 512}

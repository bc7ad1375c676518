"""A member's resources as Ray Serve gets them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from ray.serve.config import RequestRouterConfig
from ray.serve.schema import DeploymentSchema

from deployments.serving.replica_options import (
    CallsPerReplica,
    member_options,
    messages_at_once,
    replicated,
)
from runtime.config.engines import VllmEngine, innermost
from runtime.config.members import MemberConfig


def member(engine: dict[str, Any] | None = None, **replica: Any) -> MemberConfig:
    engine = {"type": "vllm", "weights": "zoo:large"} | (engine or {})
    return MemberConfig.model_validate({"engine": engine, "replica": replica})


def accepted(options: dict[str, Any]) -> DeploymentSchema:
    """Serve's own schema takes them."""
    return DeploymentSchema.model_validate({"name": "member"} | options)


def test_a_vllm_member_takes_two_full_batches_of_messages() -> None:
    assert messages_at_once(member({"max_num_seqs": 32})) == 64
    assert messages_at_once(member({"max_num_seqs": 32}, max_ongoing_requests=5)) == 5
    echo = MemberConfig.model_validate({"engine": {"type": "echo"}})
    assert messages_at_once(echo) == 64


def test_one_replica_needs_no_affinity_and_several_hash_by_trace_id() -> None:
    alone, several = member(), member(num_replicas=2)
    assert not replicated(alone) and "request_router_config" not in member_options(alone)
    router = member_options(several)["request_router_config"]
    accepted(member_options(several))
    assert "ConsistentHashRouter" in RequestRouterConfig(**router).request_router_class


def test_autoscaling_goes_by_engine_calls() -> None:
    scaled = member(autoscaling={"max_replicas": 4, "target_calls": 8})
    assert replicated(scaled)
    options = member_options(scaled)
    assert "num_replicas" not in options
    assert accepted(options).autoscaling_config is not None
    policy = CallsPerReplica(**options["autoscaling_config"]["policy"]["policy_kwargs"])

    def wanted(calls: dict[str, float]) -> int:
        context: Any = SimpleNamespace(
            aggregated_metrics={"calls": calls}, target_num_replicas=3, running_replicas=running
        )
        return policy(context)[0]

    running = ["one"]

    assert wanted({"one": 8.0}) == 1
    assert wanted({"one": 9.0}) == 2
    assert wanted({"one": 20.0, "two": 5.0}) == 4
    assert wanted({"one": 0.0}) == 1
    assert wanted({}) == 3, "as it was, while nothing is known"
    running = ["one", "two"]
    assert wanted({"one": 16.0}) == 4, "the other has not reported yet"


def test_a_part_of_a_card_limits_the_memory_vllm_takes() -> None:
    third = member(num_gpus=0.3)
    engine = third.served_engine
    assert isinstance(engine, VllmEngine)
    assert engine.gpu_memory_utilization == pytest.approx(0.27)
    assert member_options(third)["ray_actor_options"]["num_gpus"] == 0.3
    own = member({"gpu_memory_utilization": 0.2}, num_gpus=0.3).served_engine
    assert isinstance(own, VllmEngine) and own.gpu_memory_utilization == 0.2
    whole = member(num_gpus=1).served_engine
    assert isinstance(whole, VllmEngine) and whole.gpu_memory_utilization is None


def test_tensor_parallel_members_get_a_placement_group_on_one_node() -> None:
    pair = member({"tensor_parallel_size": 2}, num_gpus=2)
    options = member_options(pair)
    assert options["placement_group_bundles"] == [{"CPU": 1.0, "GPU": 2.0}]
    assert options["placement_group_strategy"] == "STRICT_PACK"
    assert options["ray_actor_options"]["num_gpus"] == 2
    accepted(options)
    engine = pair.served_engine
    assert isinstance(engine, VllmEngine)
    assert engine.engine_args["distributed_executor_backend"] == "mp"


def test_over_several_nodes_each_worker_has_a_bundle_and_the_replica_leaves_it_its_gpu() -> None:
    wide = member(
        {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, num_gpus=4, span_nodes=True
    )
    options = member_options(wide)
    assert [bundle["GPU"] for bundle in options["placement_group_bundles"]] == [1.0] * 4
    assert options["ray_actor_options"]["num_gpus"] == 0
    accepted(options)
    engine = wide.served_engine
    assert isinstance(engine, VllmEngine)
    assert engine.engine_args["distributed_executor_backend"] == "ray"


def test_an_engine_inside_a_rehearsal_gets_its_resources_too() -> None:
    inner = {"type": "vllm", "weights": "zoo:large", "tensor_parallel_size": 2}
    rehearsed = MemberConfig.model_validate(
        {"engine": {"type": "slow", "engine": inner}, "replica": {"num_gpus": 2}}
    )
    assert member_options(rehearsed)["placement_group_bundles"] == [{"CPU": 1.0, "GPU": 2.0}]
    assert messages_at_once(rehearsed) == 256
    engine = innermost(rehearsed.served_engine)
    assert isinstance(engine, VllmEngine)
    assert engine.engine_args == {"distributed_executor_backend": "mp"}
    with pytest.raises(ValidationError, match="needs 2"):
        MemberConfig.model_validate(
            {"engine": {"type": "flaky", "engine": inner}, "replica": {"num_gpus": 1}}
        )


@pytest.mark.parametrize(
    ("engine", "replica", "expected"),
    [
        ({"tensor_parallel_size": 2}, {"num_gpus": 1}, "needs 2"),
        ({"gpu_memory_utilization": 0.5}, {"num_gpus": 0.3}, "lower it"),
        ({}, {"num_gpus": 2}, "set tensor_parallel_size"),
        ({}, {"num_gpus": 1, "span_nodes": True}, "several GPUs share"),
        ({"lora_path": "x", "embedding": "transformers"}, {}, "use embedding: pooling"),
        ({}, {"num_replicas": 2, "autoscaling": {}}, "exclude each other"),
        ({}, {"autoscaling": {"min_replicas": 3, "max_replicas": 2}}, "more than max_replicas"),
    ],
)
def test_resources_that_cannot_work_are_refused(
    engine: dict[str, Any], replica: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValidationError, match=expected):
        member(engine, **replica)

"""Options of the deployments in Ray Serve: resources, numbers of replicas, routing."""

from __future__ import annotations

import math
from typing import Any, Final

from ray.serve.config import AutoscalingContext

from runtime.config.engines import VllmEngine, innermost
from runtime.config.gateway import GatewayConfig
from runtime.config.members import MemberConfig

DRAIN_S: Final = 0.2
"""Seconds between two checks of a stopping replica whether its requests are done."""
DEFAULT_MESSAGES: Final = 64
CALLS: Final = "calls"
ROUTER: Final = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"


SPARE_REQUESTS: Final = 64
"""Slots for requests that generate nothing, such as listings and refusals."""
HEAD_NODE: Final = "node:__internal_head__"
"""A resource that Ray gives to the head node alone."""
_UNBROKEN: Final = {
    "max_surge_percent": 100,
    "graceful_shutdown_timeout_s": 600.0,
    "graceful_shutdown_wait_loop_s": DRAIN_S,
    "health_check_period_s": 2,  # answers stall until a dead process is detected
    "health_check_timeout_s": 30,
}
"""For deployments that need few resources: when one is replaced, the new replica starts first, and
the old one completes its answers."""


def replicated(member: MemberConfig) -> bool:
    """Whether a member has several replicas, so that it matters which one serves a request."""
    return member.replica.most_replicas > 1


def member_options(member: MemberConfig) -> dict[str, Any]:
    """Options of a member's deployment."""
    replica = member.replica
    options: dict[str, Any] = {
        "max_ongoing_requests": messages_at_once(member),
        "max_queued_requests": replica.max_queued_requests,
        "graceful_shutdown_wait_loop_s": DRAIN_S,
        "health_check_period_s": 10,
        "health_check_timeout_s": 60,
        "ray_actor_options": {
            "num_cpus": replica.num_cpus,
            "num_gpus": replica.num_gpus,
            "resources": dict(replica.resources),
        },
    }
    if replica.autoscaling is None:
        options["num_replicas"] = replica.num_replicas
    else:
        options["autoscaling_config"] = _autoscaling(member)
    if replicated(member):
        options["request_router_config"] = {"request_router_class": ROUTER}
    return options | _placement(member)


def gateway_options(gateway: GatewayConfig) -> dict[str, Any]:
    """Options of the gateway's deployment. The gateway refuses excess requests itself, so Serve
    must pass it more than it admits; only beyond that do Serve's proxies refuse."""
    return {
        "num_replicas": gateway.replicas,
        "max_ongoing_requests": 2 * gateway.max_answers + SPARE_REQUESTS,
        "max_queued_requests": 2 * gateway.max_answers + SPARE_REQUESTS,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1},
        "ray_actor_options": {
            "num_cpus": 0,
            "resources": {HEAD_NODE: 0.001} if gateway.on_head else {},
        },
        **_UNBROKEN,
    }


def coordinator_options(replicas: int, gateway: GatewayConfig) -> dict[str, Any]:
    """Options of a coordinator's deployment: slots for all requests that the gateways admit."""
    options: dict[str, Any] = {
        "num_replicas": replicas,
        "max_ongoing_requests": gateway.replicas * gateway.max_answers + SPARE_REQUESTS,
        "ray_actor_options": {"num_cpus": 0},
        **_UNBROKEN,
    }
    if replicas > 1:
        options["request_router_config"] = {"request_router_class": ROUTER}
    return options


def messages_at_once(member: MemberConfig) -> int:
    """Messages that a replica takes at once: enough to fill a continuous batch."""
    configured = member.replica.max_ongoing_requests
    if configured is not None:
        return configured
    engine = innermost(member.engine)
    return 2 * engine.max_num_seqs if isinstance(engine, VllmEngine) else DEFAULT_MESSAGES


def _placement(member: MemberConfig) -> dict[str, Any]:
    """The placement group of a model on several GPUs.

    On one node a single bundle holds the replica and its GPUs, and vLLM starts its workers itself.
    Over several nodes each worker is a Ray actor with a bundle of its own; the replica takes the
    CPUs of the first and leaves its GPU to the worker.
    """
    replica, engine = member.replica, innermost(member.engine)
    if not isinstance(engine, VllmEngine) or engine.workers == 1 or replica.num_gpus == 0:
        return {}
    if not replica.span_nodes:
        whole = {"CPU": replica.num_cpus, "GPU": replica.num_gpus} | replica.resources
        return {"placement_group_bundles": [whole], "placement_group_strategy": "STRICT_PACK"}
    first = {"CPU": replica.num_cpus, "GPU": 1.0} | replica.resources
    others = [{"GPU": 1.0} for _ in range(engine.workers - 1)]
    return {
        "placement_group_bundles": [first, *others],
        "placement_group_strategy": "PACK",
        "ray_actor_options": {
            "num_cpus": replica.num_cpus,
            "num_gpus": 0,
            "resources": dict(replica.resources),
            # vLLM reads the properties of a GPU in the replica, so GPUs must be visible there.
            "runtime_env": {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
        },
    }


def _autoscaling(member: MemberConfig) -> dict[str, Any]:
    scaling = member.replica.autoscaling
    assert scaling is not None
    return {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "upscale_delay_s": scaling.upscale_delay_s,
        "downscale_delay_s": scaling.downscale_delay_s,
        "policy": {
            "policy_function": f"{__name__}:{CallsPerReplica.__name__}",
            "policy_kwargs": {"target_calls": scaling.target_calls},
        },
    }


class CallsPerReplica:
    """Autoscaling policy by engine calls. Serve's own policy counts messages, which hold many
    calls.

    Serve applies the configured bounds and delays to the result."""

    def __init__(self, target_calls: float) -> None:
        self._target = target_calls

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        reported = (context.aggregated_metrics or {}).get(CALLS, {})
        if not reported:
            return context.target_num_replicas, {}
        # A replica that has not reported yet counts as an average one.
        calls = (
            sum(reported.values())
            / len(reported)
            * max(len(reported), len(context.running_replicas))
        )
        return max(1, math.ceil(calls / self._target)), {}

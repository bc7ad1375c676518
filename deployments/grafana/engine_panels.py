"""Rows about what serves them: vLLM engines and Ray Serve replicas."""

from __future__ import annotations

from typing import Final

from deployments.grafana.queries import EVERY, Line, Panel, Row, growing, level, quantiles, rate

VLLM: Final = Row(
    "vLLM",
    (
        Panel(
            "Requests in the engine",
            "short",
            [
                level("ray_vllm_num_requests_running", "model_name", name="running"),
                level("ray_vllm_num_requests_waiting", "model_name", name="waiting"),
            ],
        ),
        Panel(
            "KV cache in use",
            "percentunit",
            [level("ray_vllm_kv_cache_usage_perc", "model_name", over="max")],
        ),
        Panel(
            "Prefix cache hits",
            "percentunit",
            [
                Line(
                    rate("ray_vllm_prefix_cache_hits_total", "model_name")
                    + " / "
                    + rate("ray_vllm_prefix_cache_queries_total", "model_name"),
                    "{{model_name}}",
                )
            ],
        ),
        Panel(
            "Tokens",
            "short",
            [
                growing("ray_vllm_prompt_tokens_total", "model_name", name="prompt"),
                growing("ray_vllm_generation_tokens_total", "model_name", name="generation"),
            ],
            "A second.",
        ),
        Panel(
            "Time to the first token",
            "s",
            quantiles("ray_vllm_time_to_first_token_seconds", "model_name"),
        ),
        Panel(
            "Time in the queue",
            "s",
            quantiles("ray_vllm_request_queue_time_seconds", "model_name"),
        ),
    ),
)

SERVE: Final = Row(
    "Ray Serve",
    (
        Panel(
            "Replicas",
            "short",
            [
                level("ray_serve_replica_processing_queries", "deployment", over="count"),
                level(
                    "ray_serve_autoscaling_target_replicas", "deployment", name="wanted", over="max"
                ),
            ],
        ),
        Panel(
            "Queued at handles",
            "short",
            [level("ray_serve_deployment_queued_queries", "deployment")],
            "Messages that wait for a replica that takes them.",
        ),
        Panel(
            "At work in replicas",
            "short",
            [level("ray_serve_replica_processing_queries", "deployment")],
        ),
        Panel(
            "Time in replicas",
            "ms",
            quantiles("ray_serve_deployment_processing_latency_ms", "deployment"),
        ),
        Panel(
            "Errors in replicas",
            "reqps",
            [
                Line(
                    rate(
                        "ray_serve_deployment_error_counter_total",
                        "deployment, exception_type",
                        'exception_type!="CancelledError"',
                    ),
                    "{{deployment}}: {{exception_type}}",
                )
            ],
        ),
        Panel(
            "Replicas started",
            "short",
            [
                Line(
                    "sum by (deployment) "
                    f"(increase(ray_serve_deployment_replica_starts_total{EVERY}))",
                    "{{deployment}}",
                )
            ],
            "More than at deployment: processes have died, or autoscaling works.",
        ),
    ),
)

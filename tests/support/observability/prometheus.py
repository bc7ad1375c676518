"""Ray's metrics the way Prometheus reads them: over HTTP, from the node's export port."""

from __future__ import annotations

import math
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from deployments.launch.local_ray import scrape_url

OFTEN = ("RAY_metrics_report_interval_ms", "1000")
"""Set in the environment of a cluster, its processes tell their metrics every second, not ten."""


def samples(name: str) -> list[Sample]:
    """All series of a name; the page is long, so that only their lines are parsed."""
    with urllib.request.urlopen(scrape_url(), timeout=10) as reply:
        lines = [line for line in reply.read().decode().splitlines() if line.startswith(name + "{")]
    families = text_string_to_metric_families("\n".join(lines))
    return [sample for family in families for sample in family.samples]


def wait_for(
    name: str, least: float, seconds: float = 30, most: float = math.inf, **labels: str
) -> float:
    """The sum over the series with these labels, once it is at least and at most so much."""
    deadline = time.monotonic() + seconds
    while True:
        found = [s.value for s in samples(name) if labels.items() <= s.labels.items()]
        if found and least <= sum(found) <= most:
            return sum(found)
        assert time.monotonic() < deadline, f"{name} {labels} is {found}, not {least} to {most}"
        time.sleep(0.5)


SERVE = {
    "ray_serve_num_http_error_requests_total": {"error_code"},
    "ray_serve_replica_processing_queries": {"deployment"},
    "ray_serve_autoscaling_target_replicas": {"deployment"},
    "ray_serve_deployment_queued_queries": {"deployment"},
    "ray_serve_deployment_processing_latency_ms_bucket": {"deployment", "le"},
    "ray_serve_deployment_error_counter_total": {"deployment", "exception_type"},
    "ray_serve_deployment_replica_starts_total": {"deployment"},
}
"""Ray Serve's; test_serve_observability.py finds them on a live page."""

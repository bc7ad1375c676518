"""A Ray of the test's own: small, on loopback, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray


@contextmanager
def small_ray() -> Iterator[None]:
    """Without Serve; ``deployments.launch.local_ray.serving`` starts what endpoints need."""
    ray.init(
        "local",
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()

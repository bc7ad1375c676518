"""A Ray of the test's own: small, on loopback, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.processes import none_left_behind


@contextmanager
def small_ray() -> Iterator[None]:
    """Without Serve; ``tests.support.serve.ray_serve`` starts what endpoints need."""
    import ray

    with none_left_behind():
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

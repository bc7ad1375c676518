"""One Ray and one Serve for the files of this folder; each deploys an application of its own. Tests
that need a Ray of their own are in ``ray_own/``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.observability.prometheus import OFTEN
from tests.support.serve import ray_serve


@pytest.fixture(scope="package")
def serve_port() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(*OFTEN)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        with ray_serve() as port:
            yield port

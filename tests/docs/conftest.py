"""Servers that blocks of the documentation ask, started once for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.running import Servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers(tmp_path_factory.mktemp("servers")) as started:
        yield started

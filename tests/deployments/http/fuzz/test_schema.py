"""Requests drawn from the OpenAPI document, those that fit it and those that do not, against every
family of ensembles: each is answered as the document says, and none with a fault of the server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.support.http.ensembles import Reply, call
from tests.support.http.openapi_conformance import DOCUMENT, conforms, fits
from tests.support.local_stack import running
from tests.support.models.method_families import MODELS, families

EXAMPLES = int(os.environ.get("ORCHESTRION_FUZZ", "60"))
"""Requests for each route and mode; thousands find what is rare."""
PATIENCE_S = 20.0
CALM = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="ORCHESTRION_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
WRITING = ("/v1/chat/completions", "/v1/completions")
READING = ("/v1/models/{id}", "/v1/traces/{id}")


class Endpoint:
    """The whole stack with one event loop for all requests of this file."""

    def __init__(self, runner: asyncio.Runner, api: Any) -> None:
        self._runner, self._api = runner, api

    def __call__(self, method: str, path: str, payload: Any = None) -> Reply:
        """A reply that came in time and is as described, no fault of the server among them."""
        asking = asyncio.wait_for(call(self._api, method, path, payload), PATIENCE_S)
        reply = self._runner.run(asking)
        assert reply.status < 500, reply.content
        conforms(method, path, reply)
        if reply.headers.get("content-type", "").startswith("text/event-stream"):
            assert b'data: {"error"' not in reply.content
        return reply


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with asyncio.Runner() as runner:
        stack = running(families())
        try:
            opened = runner.run(stack.__aenter__())
            yield Endpoint(runner, opened.api())
        finally:
            runner.run(stack.__aexit__(None, None, None))


def without_points(value: Any) -> Any:
    """JSON Schema takes 5.0 for an integer; the endpoint does not, and says so."""
    if isinstance(value, dict):
        return {key: without_points(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_points(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def drawn(path: str, mode: GenerationMode) -> st.SearchStrategy[Any]:
    """Bodies for a route; most name a model that exists."""
    cases = SCHEMA[path]["POST"].as_strategy(generation_mode=mode)
    bodies = cases.map(lambda case: without_points(case.body))
    models = st.sampled_from((*MODELS, *MODELS, None))
    return st.tuples(bodies, models).map(
        lambda made: (
            {**made[0], "model": made[1]} if isinstance(made[0], dict) and made[1] else made[0]
        )
    )


@pytest.mark.parametrize("path", WRITING)
def test_a_body_that_fits_the_document_gets_a_documented_answer(
    endpoint: Endpoint, path: str
) -> None:
    @CALM
    @given(drawn(path, GenerationMode.POSITIVE))
    def ask(body: Any) -> None:
        endpoint("POST", path, body)

    ask()


@pytest.mark.parametrize("path", WRITING)
def test_a_body_that_does_not_fit_the_document_is_refused(endpoint: Endpoint, path: str) -> None:
    @CALM
    @given(drawn(path, GenerationMode.NEGATIVE))
    def ask(body: Any) -> None:
        reply = endpoint("POST", path, body)
        if isinstance(body, bytes) or not fits(path, body):
            assert 400 <= reply.status < 500, body

    ask()


@pytest.mark.parametrize("path", READING)
def test_any_name_in_a_path_is_found_or_not(endpoint: Endpoint, path: str) -> None:
    @CALM
    @given(st.text(min_size=1) | st.sampled_from(MODELS))
    def ask(name: str) -> None:
        request = path.format(id=name)
        if "\n" not in name and (path == READING[0] or "/" not in name):
            assert endpoint("GET", request).status in (200, 404)

    ask()

"""The endpoints under the contract tests. ``contract`` says what is served; further sets of models
join as parameters of that fixture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from openai import OpenAI

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from tests.deployments.http.openai.contract import Contract, tale
from tests.support.http.ensembles import WORDS, Chorus, api_of, served


@pytest.fixture(scope="module", params=["doubles", "coordinators"])
def contract(request: pytest.FixtureRequest) -> Iterator[Contract]:
    if request.param == "doubles":
        models = {"ensemble/chorus": Chorus(), "ann": Chorus(("ann",))}
        with served(api_of(models)) as url:
            text = f"{WORDS[0]} {WORDS[3]}"
            yield Contract(url, "ensemble/chorus", "ann", ("ann", "bob"), (0, 3), text)
        return
    method = {"type": "sweetspan", "span_words": 1, "members": ["cat", "dog"]}
    stack = LocalStack(
        AppConfig.model_validate(
            {
                "members": {"cat": tale("cat"), "dog": tale("dog")},
                "ensembles": {"ensemble/pets": method},
            }
        )
    )
    with served(stack.api()) as url:
        yield Contract(url, "ensemble/pets", "cat", ("cat", "dog"), (0, 1), " the cat")
    asyncio.run(stack.close())


@pytest.fixture
def client(contract: Contract) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{contract.url}/v1", api_key="any", max_retries=0) as client:
        yield client

"""What a method needs of its members is checked when the configuration is read."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from deployments.config.app_config import AppConfig
from deployments.config.needs import needs
from deployments.doctor import methods as doctor
from policies import METHODS
from policies.base import Level, Need
from runtime.engines import build_engine
from runtime.errors import ConfigError
from runtime.types.capabilities import MEANING, TOKEN_LEVEL
from runtime.types.query import Message, Query
from tests.support.local_stack import CAT, DOG, running
from tests.support.paths import ROOT

ECHO: dict[str, Any] = {"type": "echo"}
ENGINES: dict[str, dict[str, Any]] = {
    "transformers": {"type": "transformers", "weights": "zoo:none"},
    "vllm": {"type": "vllm", "weights": "zoo:none"},
    "vllm-pooling": {"type": "vllm", "weights": "zoo:none", "embedding": "pooling"},
    "vllm-transformers": {"type": "vllm", "weights": "zoo:none", "embedding": "transformers"},
    "table": CAT,
    "echo": ECHO,
    "flaky": {"type": "flaky", "engine": ECHO},
    "flaky-vllm": {"type": "flaky", "engine": {"type": "vllm", "weights": "zoo:none"}},
    "slow": {"type": "slow", "engine": ECHO},
}
EXTRA: dict[str, dict[str, Any]] = {
    "citer": {"router": "router"},
    "co-llm": {"router": "router"},
    "der": {"agent": "agent", "encoder": "a"},
    "le-mcts": {"reward": "likelihood"},
    "best-of-n": {"reward": "likelihood"},
    "best-of-ensemble": {"reward": "likelihood"},
    "ebs": {"reward": "likelihood"},
}
"""Fields that methods require."""
REFUSED = {
    (method, engine) for method in ("citer", "co-llm", "der") for engine in ("vllm", "flaky-vllm")
}
"""All pairs of a method and an engine that cannot work."""
NEEDED = {
    "single": {"generate"},
    "sweetspan": {"generate", "score"},
    "specfuse": {"generate", "score"},
    "specem": {"generate", "score"},
    "cool-fusion": {"generate", "score"},
    "gac": {"generate", "next_token"},
    "unite": {"generate", "next_token"},
    "deepen": {"generate", "next_token", "vectors"},
    "eva": {"generate", "next_token", "vectors"},
    "packllm": {"generate", "next_token", "score"},
    "abe": {"next_token"},
    "citer": {"generate", "shared_tokenizer", "states"},
    "co-llm": {"generate", "shared_tokenizer", "states"},
    "uncertainty": {"generate", "shared_tokenizer", "next_token"},
    "le-mcts": {"generate", "score"},
    "best-of-n": {"generate", "score"},
    "best-of-ensemble": {"generate", "score"},
    "ebs": {"generate", "score"},
    "cbs": {"generate", "score"},
    "der": {"generate", "embed"},
    "fixed-route": {"generate"},
    "random-route": {"generate"},
}


def document(method: str, first: dict[str, Any], second: dict[str, Any] = ECHO) -> dict[str, Any]:
    """An ensemble ``e`` of member ``a`` on the engine in question, and another on a second one."""
    members = ["a"] if method == "best-of-n" else ["a", "b"]
    ensemble = {"type": method, "members": members, **EXTRA.get(method, {})}
    return {
        "members": {"a": {"engine": first}, "b": {"engine": second}},
        "ensembles": {"e": ensemble},
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_refused_exactly_on_engines_that_lack_something(
    method: str, engine: str
) -> None:
    config = document(method, ENGINES[engine])
    if (method, engine) not in REFUSED:
        assert AppConfig.model_validate(config).ensembles["e"].type == method
        return
    with pytest.raises(ValidationError) as caught:
        AppConfig.model_validate(config)
    [error] = caught.value.errors()
    assert error["loc"] == ("ensembles", "e")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_declares_what_it_needs(method: str) -> None:
    config = AppConfig.model_validate(document(method, ECHO)).ensembles["e"]
    assert {need.what for need in needs(config)} == NEEDED[method]
    assert METHODS[method].policy.level in get_args(Level)
    for need in METHODS[method].policy.needs:
        assert need.what in MEANING or need.what == "shared_tokenizer"
        assert set(need.when) <= set(type(config).model_fields)


@pytest.mark.parametrize("engine", ["table", "echo", "flaky", "slow"])
async def test_a_configuration_predicts_what_the_engine_provides(engine: str) -> None:
    config = AppConfig.model_validate(document("single", ENGINES[engine])).members["a"].engine
    built = build_engine(config)
    assert built.spec.capabilities == config.capabilities
    await built.close()


def test_the_error_names_ensemble_method_member_lack_and_remedy() -> None:
    with pytest.raises(ValidationError) as caught:
        AppConfig.model_validate(document("citer", ENGINES["vllm"]))
    assert caught.value.errors()[0]["msg"] == (
        "ensemble 'e' (citer) needs states (the last-layer states after each token of a text) of "
        "member 'a', which its engine, vllm, does not provide; set members.a.engine.embedding: "
        "pooling or transformers"
    )
    with pytest.raises(ValidationError, match=r"members\.a\.engine\.engine\.embedding: pooling"):
        AppConfig.model_validate(document("citer", ENGINES["flaky-vllm"]))


def test_only_the_member_that_has_the_part_must_provide_it() -> None:
    large_on_vllm = document("citer", ECHO, ENGINES["vllm"])
    assert AppConfig.model_validate(large_on_vllm).ensembles
    large_on_vllm["ensembles"]["e"]["small"] = "b"
    with pytest.raises(ValidationError, match="of member 'b'"):
        AppConfig.model_validate(large_on_vllm)
    other_encoder = document("der", ENGINES["vllm"])
    other_encoder["ensembles"]["e"]["encoder"] = "b"
    assert AppConfig.model_validate(other_encoder).ensembles


def test_a_need_may_depend_on_the_configuration() -> None:
    def needed(method: str, **fields: Any) -> set[str]:
        config = document(method, ECHO)
        config["ensembles"]["e"] |= fields
        config["reward_models"] = {
            "prm": {"judge": {"type": "classifier", "weights": "zoo:none"}},
        }
        return {need.what for need in needs(AppConfig.model_validate(config).ensembles["e"])}

    assert "score" in needed("ebs") and "score" not in needed("ebs", reward="prm")
    assert "vectors" not in needed("packllm") and "vectors" in needed("packllm", fusion="eva")
    assert "next_token" not in needed("uncertainty", by="random")


def test_needs_are_engine_capabilities() -> None:
    declared = {need.what for method in METHODS.values() for need in method.policy.needs} - {
        "shared_tokenizer"
    }
    assert declared <= TOKEN_LEVEL  # what engines may lack is no reason to refuse them
    assert Need("generate").members(
        AppConfig.model_validate(document("single", ECHO)).ensembles["e"]
    ) == ("a", "b")


async def test_a_shared_tokenizer_is_checked_when_the_members_are_up() -> None:
    config = document("uncertainty", CAT, DOG)
    async with running(config) as stack:
        query = Query(id="t", model="e", messages=(Message("user", "Who?"),))
        with pytest.raises(ConfigError, match="'a' and 'b' do not share a tokenizer"):
            async for _ in stack.models["e"].answer(query):
                pass


def test_the_doctor_shows_what_each_ensemble_needs() -> None:
    [found] = doctor.check(AppConfig.model_validate(document("uncertainty", CAT, CAT)))
    assert (found.level, found.subject) == ("ok", "e")
    assert found.found == (
        "uncertainty-entropy: the engines provide what it needs (a, b: generate; a: next_token); "
        "a and b must share one tokenizer, which is checked when they have started"
    )


def test_the_documentation_lists_the_capabilities() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    for capability in TOKEN_LEVEL:
        assert f"| `{capability}` | {MEANING[capability]} |" in page

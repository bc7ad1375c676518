"""Text encoders: pooling, cutting, batching, and one in an ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModel, AutoTokenizer

from deployments.config.app_config import AppConfig
from policies.cascade.sequential.der import DERConfig
from runtime.encoders import EncoderConfig, TextEncoder, build_encoder
from runtime.errors import WeightsError
from tests.support.local_stack import ask, running
from tests.support.models.agents import ECHO, PROMPT, agent
from tests.support.paths import ZOO

TEXTS = ["What is the capital of Peru?", "Lima", "", "The capital of Peru is Lima\nAnswer: Lima"]
SMALL = ZOO / "small"


def encoder(**fields: object) -> TextEncoder:
    return build_encoder(EncoderConfig.model_validate({"weights": "zoo:small", **fields}))


def states(text: str) -> torch.Tensor:
    """Of one text alone, ``[tokens, hidden]``."""
    tokenizer = AutoTokenizer.from_pretrained(SMALL)
    model = AutoModel.from_pretrained(SMALL, dtype=torch.float32)
    with torch.inference_mode():
        read = tokenizer(text or " ", return_tensors="pt", return_token_type_ids=False)
        result: torch.Tensor = model(**read).last_hidden_state[0]
    return result


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_padding_does_not_count(pooling: str) -> None:
    result = encoder(pooling=pooling).encode(TEXTS)
    assert result.dtype == np.float32 and result.shape == (4, encoder().size)
    for vector, text in zip(result, TEXTS, strict=True):
        own = states(text)
        wanted = {"mean": own.mean(0), "first": own[0], "last": own[-1]}[pooling]
        assert vector == pytest.approx(wanted.numpy(), abs=1e-4)


def test_batches_change_nothing() -> None:
    batched, one_by_one = encoder().encode(TEXTS), encoder(batch=1).encode(TEXTS)
    assert batched == pytest.approx(one_by_one, abs=1e-4)


def test_a_long_text_is_cut_at_its_end() -> None:
    few = encoder(max_context=8)
    begun, whole = few.encode(["one two three four five six seven eight nine ten " * 3] * 2)
    assert begun == pytest.approx(whole)
    assert not np.allclose(few.encode([TEXTS[3]]), encoder().encode([TEXTS[3]]), atol=1e-3)


def test_nothing_to_encode() -> None:
    assert encoder().encode([]).shape[0] == 0


def test_weights_that_are_not_there() -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        encoder(weights="nowhere")


def app(**fields: object) -> dict[str, object]:
    return {
        "members": {"a": ECHO, "b": ECHO},
        "encoders": {"reader": {"weights": "zoo:small", "threads": 1, "price": {"input": 5.0}}},
        "ensembles": {
            "der": {
                "type": "der",
                "members": ["a", "b"],
                "encoder": "reader",
                "transfer": PROMPT,
                "agent": "nowhere",
                **fields,
            }
        },
    }


async def test_an_encoder_serves_an_ensemble_and_is_accounted(tmp_path: Path) -> None:
    zero = np.zeros((3, encoder().size + 1), dtype=np.float32)
    made = agent(((zero, np.array([0.0, 1.0, 0.0], dtype=np.float32)),), encoder="reader", t_max=2)
    made.save(tmp_path)
    async with running(app(agent=str(tmp_path))) as stack:
        result = await ask(stack, "der")
    assert result.summary["route"] == ["b", "b"]
    assert result.summary["encoder"]["calls"] == 2
    assert result.summary["encoder"]["cost"] == pytest.approx(2 * 5e-6)


@pytest.mark.parametrize("wanted", ["readr", "prm"])
def test_an_encoder_that_is_not_configured_is_named(wanted: str) -> None:
    with pytest.raises(ValidationError, match=f"names encoder '{wanted}'"):
        AppConfig.model_validate(app(encoder=wanted))


def test_an_encoder_has_a_name_of_its_own() -> None:
    taken = app()
    taken["encoders"] = {"a": {"weights": "zoo:small"}}
    with pytest.raises(ValidationError, match="'a' names an encoder and something else"):
        AppConfig.model_validate(taken)


def test_a_member_may_be_the_encoder() -> None:
    result = AppConfig.model_validate(app(encoder="a"))
    der = result.ensembles["der"]
    assert isinstance(der, DERConfig) and result.own_encoder(der) is None


def test_encoders_are_fetched_and_sized_like_members() -> None:
    served = AppConfig.model_validate(app()).served
    assert served["reader"].engine.model_dump()["weights"] == "zoo:small"

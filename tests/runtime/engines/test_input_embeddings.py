"""Input embeddings: the same rows from the model, from its checkpoint and over the wire."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from runtime.call_context import CallContext
from runtime.calls.messages import Call, CallRunner
from runtime.calls.remote_engine import RemoteEngine
from runtime.config.engines import EchoEngine, TableEngine, TransformersEngine
from runtime.engines import build_engine
from runtime.engines.scripted.fault_injection import FlakyLM, SlowLM
from runtime.engines.scripted.models import EchoLM, TableLM
from runtime.errors import BadRequest, EngineFault, Unsupported
from runtime.weights import resolve
from runtime.weights.embeddings import locate


class Direct:
    """A channel without a wire."""

    def __init__(self, engine: TableLM) -> None:
        self.runner = CallRunner(engine)

    async def describe(self):  # type: ignore[no-untyped-def]
        return self.runner.engine.spec

    def place(self, call_context: CallContext) -> str:
        return ""

    async def send(self, calls):  # type: ignore[no-untyped-def]
        return await self.runner.run(calls)

    async def abort(self, call: Call) -> None:
        self.runner.abort([call.id])


def table(*words: str) -> TableLM:
    return TableLM(TableEngine(vocabulary=words, table={}))


async def test_equal_tokens_of_scripted_models_have_equal_vectors() -> None:
    one, other = table("cat", "dog"), table("dog", "cow", "cat")
    [cat, dog] = await one.vectors([0, 1])
    [dog_too, cow, cat_too] = await other.vectors([0, 1, 2])
    assert np.array_equal(cat, cat_too)
    assert np.array_equal(dog, dog_too)
    assert not np.array_equal(cat, cow)
    assert (cat.dtype, cat.shape) == (np.float32, (one.spec.hidden_size,))
    assert "vectors" in one.spec.capabilities


async def test_control_tokens_have_vectors_of_their_own() -> None:
    engine = EchoLM(EchoEngine())
    rows = await engine.vectors(range(engine.spec.vocab_size))
    assert len({row.tobytes() for row in rows}) == len(rows)


async def test_no_ids_give_no_rows() -> None:
    assert (await table("cat").vectors([])).shape == (0, 32)


@pytest.mark.parametrize("wrong", [-1, 259])
async def test_an_id_beyond_the_table_is_refused(wrong: int) -> None:
    with pytest.raises(BadRequest, match=f"{wrong} has no embedding; the model has 259"):
        await table("cat").vectors([0, wrong])


async def test_wrappers_and_the_wire_pass_them_on() -> None:
    engine = table("cat", "dog")
    rows = await engine.vectors([0, 1])
    assert np.array_equal(await SlowLM(engine, seconds=0).vectors([0, 1]), rows)
    with pytest.raises(EngineFault):
        await FlakyLM(engine, fails_at=[1]).vectors([0])
    remote = RemoteEngine(Direct(engine))
    await remote.open()
    assert np.array_equal(await remote.vectors(range(2)), rows)
    with pytest.raises(BadRequest):
        await remote.vectors([9999])


@pytest.mark.zoo
@pytest.mark.parametrize("name", ["capitals", "languages", "neighbours"])
async def test_a_model_and_its_checkpoint_give_the_same_rows(name: str) -> None:
    engine = build_engine(TransformersEngine(weights=f"zoo:{name}", device="cpu", threads=1))
    stored = locate(resolve(f"zoo:{name}"), f"zoo:{name}")
    ids = [0, 5, 1000, engine.spec.vocab_size - 1]
    rows = await engine.vectors(ids)
    assert rows.shape == (4, engine.spec.hidden_size)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, stored.rows(ids))
    with pytest.raises(BadRequest):
        await engine.vectors([stored.shape[0]])
    with pytest.raises(BadRequest):
        stored.rows([stored.shape[0]])
    await engine.close()
    with pytest.raises(EngineFault):
        await engine.vectors(ids)


def checkpoint(folder: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, folder / "model.safetensors")
    return folder


NUMBERS = torch.tensor([[1.0, -2.5], [0.15625, 3.0], [-0.0078125, 64.0]])
"""Exact in every floating-point type."""


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.language_model.embed_tokens.weight",
        "transformer.wte.weight",
        "gpt_neox.embed_in.weight",
        "transformer.word_embeddings.weight",
        "model.tok_embeddings.weight",
    ],
)
def test_the_table_is_found_by_its_name_in_every_type(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    others = {"lm_head.weight": torch.ones(3, 2), "a.bias": torch.ones(1, dtype=torch.uint8)}
    stored = locate(checkpoint(tmp_path, **{name: NUMBERS.to(dtype)}, **others), "w")
    assert stored.shape == (3, 2)
    assert stored.rows([2, 0]).tolist() == NUMBERS[[2, 0]].tolist()
    assert stored.rows([2, 0]).dtype == np.float32


def test_of_several_tables_the_model_s_own_is_taken(tmp_path: Path) -> None:
    own, draft = NUMBERS, NUMBERS + 1
    folder = checkpoint(
        tmp_path,
        **{"model.layers.61.embed_tokens.weight": draft, "model.embed_tokens.weight": own},
    )
    assert locate(folder, "w").rows([1]).tolist() == own[[1]].tolist()


def test_a_table_in_one_of_several_files_is_found(tmp_path: Path) -> None:
    save_file({"model.norm.weight": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({"model.embed_tokens.weight": NUMBERS}, tmp_path / "b.safetensors")
    index = {"model.norm.weight": "a.safetensors", "model.embed_tokens.weight": "b.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert locate(tmp_path, "w").rows([0]).tolist() == NUMBERS[[0]].tolist()


def test_a_header_of_odd_length_does_no_harm(tmp_path: Path) -> None:
    data = NUMBERS.numpy().astype("<f4").tobytes()
    tensor = {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, len(data)]}
    header = json.dumps({"wte.weight": tensor}).encode()
    header += b" " * (1 - len(header) % 2)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    assert locate(tmp_path, "w").rows([1]).tolist() == NUMBERS[[1]].tolist()


def test_a_checkpoint_without_a_plain_table_has_no_vectors(tmp_path: Path) -> None:
    quantised = torch.ones(3, 2, dtype=torch.int8)
    folder = checkpoint(
        tmp_path, **{"model.embed_tokens.weight": quantised, "weight": torch.ones(2, 2)}
    )
    with pytest.raises(Unsupported, match="vectors"):
        locate(folder, "w")

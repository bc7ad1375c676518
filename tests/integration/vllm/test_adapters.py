"""LoRA adapters on vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.config.engines import TransformersEngine, VllmEngine
from runtime.engines import build_engine
from runtime.engines.vllm import launch
from runtime.errors import ConfigError
from runtime.types.sampling import Sampling
from tests.integration.vllm.conftest import SMALL, Start
from tests.support.engine_parity import both, text
from tests.support.paths import ZOO

pytestmark = pytest.mark.asyncio(loop_scope="session")


def adapted(folder: Path, to: Path, rank: int = 4, alpha: int = 8) -> tuple[Path, Path]:
    """A random adapter of all query projections, and the weights with it merged in."""
    weights = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    torch.manual_seed(3)
    parts: dict[str, torch.Tensor] = {}
    for name in [name for name in weights if name.endswith("q_proj.weight")]:
        out, into = weights[name].shape
        a, b = torch.randn(rank, into) * 0.2, torch.randn(out, rank) * 0.2
        stem = "base_model.model." + name.removesuffix(".weight")
        parts |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
        weights[name] = weights[name].float() + alpha / rank * b @ a
    adapter, merged = to / "adapter", to / "merged"
    adapter.mkdir()
    save_file(parts, adapter / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    merged.mkdir()
    for file in folder.glob("*.json*"):
        (merged / file.name).write_bytes(file.read_bytes())
    save_file(weights, merged / "model.safetensors", {"format": "pt"})
    return adapter, merged


@pytest.mark.slow
async def test_a_lora_adapter_writes_as_the_merged_weights_do(start: Start, tmp_path: Path) -> None:
    adapter, merged = adapted(ZOO / "small", tmp_path)
    tuned = await start(
        VllmEngine(
            weights=str(ZOO / "small"),
            lora_path=str(adapter),
            embedding="pooling",
            **SMALL,
        )
    )
    plain = build_engine(TransformersEngine(weights=str(merged), device="cpu", threads=1))
    try:
        prompt = text(tuned, 8, 40)
        await both((tuned, plain), "score", prompt, [text(tuned, 9, 12)])
        await both((tuned, plain), "generate", prompt, Sampling(max_tokens=10))
        await both((tuned, plain), "embed", [prompt])
    finally:
        await plain.close()


async def test_an_adapter_gets_the_least_room_that_holds_it(tmp_path: Path) -> None:
    from vllm.config.lora import MaxLoRARanks

    assert launch.LORA_RANKS == get_args(MaxLoRARanks)
    for rank, room in ((1, 1), (4, 8), (12, 16), (512, 512)):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
        assert launch.lora_rank(str(tmp_path)) == room
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 513}))
    with pytest.raises(ConfigError, match="up to 512"):
        launch.lora_rank(str(tmp_path))


async def test_an_adapter_that_is_none_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="adapter_config.json"):
        build_engine(VllmEngine(weights="zoo:small", lora_path=str(tmp_path), **SMALL))

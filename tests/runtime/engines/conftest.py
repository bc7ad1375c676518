"""Tiny models with random weights, one of each architecture that the engine is held to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

from runtime.config.engines import TransformersEngine
from runtime.engines.transformers.engine import TransformersLM

WINDOW = 192
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": WINDOW,
    "initializer_range": 0.25,
    "bos_token_id": None,
    "pad_token_id": None,
    "eos_token_id": 0,
}
SLIDING = {
    "num_key_value_heads": 1,
    "head_dim": 8,
    "sliding_window": 8,
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}


def configs(vocab_size: int) -> dict[str, PretrainedConfig]:
    common = {**COMMON, "vocab_size": vocab_size}
    return {
        "llama": LlamaConfig(**common, num_key_value_heads=2),
        "qwen2": Qwen2Config(**common, num_key_value_heads=1),
        "gpt_neox": GPTNeoXConfig(**common),
        "gemma3": Gemma3TextConfig(**(common | SLIDING)),
        "gemma2": Gemma2Config(**(common | SLIDING), attn_logit_softcapping=5.0),
        "gpt2": GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=WINDOW, vocab_size=vocab_size,
            initializer_range=0.25, bos_token_id=None, eos_token_id=0,
        ),
    }  # fmt: skip


def save_tokenizer(folder: Path) -> int:
    """A byte-level BPE with "<eos>" as id 0; gives its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog ran to the door"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def build(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        config = configs(save_tokenizer(folder))[family]
        torch.manual_seed(11)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            # Norms and biases start as ones and zeros, where many mistakes would not show.
            torch.nn.init.normal_(parameter, mean=parameter.detach().mean().item(), std=0.25)
        model.save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def reference(folder_of: Callable[[str], Path]) -> Callable[..., torch.Tensor]:
    """Logprobs ``[tokens, vocab]`` (or last states) of a plain forward over one whole text."""

    @cache
    def plain(family: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(
            folder_of(family), attn_implementation="eager"
        ).eval()

    @torch.inference_mode()
    def run(family: str, tokens: list[int], states: bool = False) -> torch.Tensor:
        model, ids = plain(family), torch.tensor([tokens])
        if states:
            return model.base_model(ids).last_hidden_state[0]
        return model(ids).logits[0].float().log_softmax(-1)

    return run


@pytest.fixture
def lm(folder_of: Callable[[str], Path]) -> Iterator[Callable[..., TransformersLM]]:
    opened: list[TransformersLM] = []

    def open_lm(family: str = "llama", **settings: Any) -> TransformersLM:
        settings = {"device": "cpu", "threads": 1, **settings}
        config = TransformersEngine(weights=str(folder_of(family)), **settings)
        opened.append(TransformersLM(config))
        return opened[-1]

    yield open_lm
    for engine in opened:
        asyncio.run(engine.close())

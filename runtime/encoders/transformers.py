"""Text vectors from the base model of a transformers checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from runtime.config.aux_models import EncoderConfig
from runtime.errors import EngineFault, WeightsError
from runtime.tokenization.files import check_tokenizer
from runtime.weights import resolve
from runtime.weights.checkpoint import NO_CODE, without_code
from runtime.weights.torch_models import (
    FORWARD_FAULTS,
    context_length,
    load_pretrained,
    pick_device,
    torch_dtype,
)

DEFAULT_CONTEXT = 512
"""Tokens, where neither the model nor the configuration sets a limit."""


class TransformerEncoder:
    """Texts of similar length share a forward pass; batching changes a vector by rounding only. A
    text longer than the context length is truncated at its end.

    Raises at construction: ``WeightsError``.
    """

    def __init__(self, config: EncoderConfig) -> None:
        folder = resolve(config.weights, config.sha256)
        self._config = config
        self._device = pick_device(config.device)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        check_tokenizer(folder)
        try:  # the pooler, which only some checkpoints have, is not used
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **NO_CODE)
            self._model = load_pretrained(
                AutoModel,
                folder,
                config.weights,
                may_lack=("pooler.",),
                dtype=torch_dtype(config.dtype),
            )
        except (OSError, KeyError, ValueError, ImportError) as fault:
            raise WeightsError(
                f"{config.weights} is not an encoder that transformers can load "
                f"({without_code(fault)})"
            ) from fault
        self._tokenizer.padding_side = "right"
        if self._tokenizer.pad_token is None:  # padding positions are masked out
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        self._model.eval().requires_grad_(False).to(self._device)
        text_config = self._model.config.get_text_config()
        self._window = context_length(text_config, config.max_context) or DEFAULT_CONTEXT
        self.size = int(text_config.hidden_size)
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, size]``. Raises ``EngineFault``."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        vectors = np.zeros((len(texts), self.size), dtype=np.float32)
        with self._lock, torch.inference_mode():
            for start in range(0, len(order), self._config.batch):
                places = order[start : start + self._config.batch]
                vectors[places] = self._forward([texts[place] for place in places])
        return vectors

    def _forward(self, texts: list[str]) -> np.ndarray:
        batch = self._tokenizer(
            # An empty text would have no tokens and so no state.
            [text or " " for text in texts],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self._window,
        )
        mask = batch["attention_mask"].to(self._device)
        try:
            states = self._model(
                input_ids=batch["input_ids"].to(self._device), attention_mask=mask
            ).last_hidden_state.float()
        except FORWARD_FAULTS as fault:
            raise EngineFault(f"{self._config.weights} could not encode: {fault}") from fault
        if self._config.pooling == "mean":
            weights = mask.unsqueeze(-1).float()
            pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        elif self._config.pooling == "first":
            pooled = states[:, 0]
        else:
            pooled = states[torch.arange(len(texts)), mask.sum(1) - 1]
        result: np.ndarray = pooled.cpu().numpy()
        return result

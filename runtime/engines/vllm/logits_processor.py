"""Samples with keyed noise in vLLM's first model runner, so that chunks do not change the text.

That runner restarts a seeded generator with each request, so a text written in spans would use the
same noise in each span. Its second runner (GPU) keys noise by seed and position itself. vLLM loads
the class by name in its own process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from runtime.engines.sampling import pick
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.sampling import Sampling

NAME = "runtime.engines.vllm.logits_processor:KeyedNoise"
KEY = "orchestrion_noise"


def noise_arguments(sampling: Sampling) -> dict[str, Any]:
    """``SamplingParams`` fields for ``KeyedNoise``. vLLM itself samples greedily: it takes the only
    token that ``KeyedNoise`` leaves."""
    names = ("temperature", "top_p", "seed", "text_noise_from")
    drawn = {name: getattr(sampling, name) for name in names}
    return {"temperature": 0.0, "extra_args": {KEY: drawn}}


class KeyedNoise(AdapterLogitsProcessor):
    """Samples the token by (seed, absolute position) and masks all others.

    vLLM reports logprobs from before any processor, so they stay the model's own. Tokens that vLLM
    has masked (an EOS before ``min_tokens``) are not sampled.
    """

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._folder = Path(vllm_config.model_config.model)

    @cached_property
    def _keys(self) -> np.ndarray:
        """Loaded at the first request for noise keyed by bytes."""
        return Tokenizer.from_folder(self._folder).noise_keys

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(
        self, params: SamplingParams
    ) -> Callable[[list[int], list[int], torch.Tensor], torch.Tensor] | None:
        drawn = (params.extra_args or {}).get(KEY)
        if drawn is None:
            return None
        sampling = Sampling(**drawn)
        keys = None if sampling.text_noise_from is None else self._keys

        def draw(prompt: list[int], output: list[int], logits: torch.Tensor) -> torch.Tensor:
            row = logits.float().cpu().numpy()
            token = pick(row, sampling, len(prompt) + len(output), keys=keys)
            logits.fill_(-torch.inf)
            logits[token] = 0.0
            return logits

        return draw

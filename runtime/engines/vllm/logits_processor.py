"""Sampling in vLLM's first model runner with our noise, so that chunks do not change the text.

That runner restarts a seeded generator with each request, so a text written in spans would draw the
same noise in each. Its second runner (GPU) keys noise by seed and position itself and needs none of
this. The class is loaded by vLLM in its own process, by name.
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
    """``SamplingParams`` fields that make the engine draw as ``sampling`` says. vLLM itself is told
    to be greedy: it takes the one token that ``KeyedNoise`` leaves."""
    names = ("temperature", "top_p", "seed", "text_noise_from")
    drawn = {name: getattr(sampling, name) for name in names}
    return {"temperature": 0.0, "extra_args": {KEY: drawn}}


class KeyedNoise(AdapterLogitsProcessor):
    """Picks the token by (seed, absolute position) and rules out all others.

    vLLM reports logprobs from before any processor, so they stay the model's own. Tokens that vLLM
    has ruled out (an EOS before ``min_tokens``) are not drawn.
    """

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._folder = Path(vllm_config.model_config.model)

    @cached_property
    def _keys(self) -> np.ndarray:
        """Read when the first text asks for noise keyed by bytes."""
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

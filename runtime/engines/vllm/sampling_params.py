"""Builds vLLM's ``SamplingParams`` from our ``Sampling``."""

from __future__ import annotations

from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from runtime.engines.vllm.logits_processor import noise_arguments
from runtime.errors import BadRequest
from runtime.types.sampling import Sampling

MAX_TEMPERATURE = 2.0
"""vLLM's limit, where it samples by itself."""


def generation_params(
    sampling: Sampling,
    max_tokens: int,
    eos_ids: tuple[int, ...],
    *,
    score_prompt: bool,
    keyed_noise: bool,
) -> Any:
    """Parameters of a generation. ``score_prompt`` also requests the prompt's logprobs;
    ``keyed_noise``: the model runner samples with our logits processor.

    Stop strings, words and ``until_below`` are checked by the engine (vLLM's stop strings need its
    own tokenizer), which needs the tokens one by one. Raises ``BadRequest``.
    """
    checked = bool(sampling.stop) or sampling.words is not None or sampling.until_below > 0
    fields: dict[str, Any] = {"temperature": 0.0}
    if sampling.temperature > 0 and keyed_noise:
        fields = noise_arguments(sampling)
    elif sampling.temperature > 0:
        if sampling.temperature > MAX_TEMPERATURE:
            raise BadRequest(f"temperature must be at most {MAX_TEMPERATURE}", "temperature")
        fields = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
    return SamplingParams(
        max_tokens=max_tokens,
        # With ignore_eos an EOS must not be sampled at all, not only be ignored.
        min_tokens=max_tokens if sampling.ignore_eos else 0,
        ignore_eos=sampling.ignore_eos,
        stop_token_ids=list(eos_ids),
        logprobs=sampling.top_k,
        prompt_logprobs=0 if score_prompt else None,
        skip_reading_prefix_cache=False,
        detokenize=False,
        flat_logprobs=True,
        output_kind=RequestOutputKind.DELTA if checked else RequestOutputKind.FINAL_ONLY,
        **fields,
    )


def next_token_params(**fields: Any) -> Any:
    """Parameters of a request for a single greedy next token; ``fields`` override the defaults."""
    fields.setdefault("skip_reading_prefix_cache", False)
    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        detokenize=False,
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **fields,
    )

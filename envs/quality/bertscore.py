"""BERTScore (arXiv 1904.09675) from a transformers encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoModel, AutoTokenizer

from envs.quality.config import BertScoreConfig
from runtime.data.questions import Question
from runtime.weights import resolve
from runtime.weights.checkpoint import NO_CODE, SAFE


class BertScore:
    """F1 of greedily matched token states. Special tokens are ignored; negative values are
    clipped to 0.

    Raises at construction: ``WeightsError``.
    """

    def __init__(self, config: BertScoreConfig) -> None:
        folder = resolve(config.weights, config.sha256)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, **NO_CODE)
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32, **SAFE)
        self._model.to(config.device).eval()
        self._layer, self._device = config.layer, config.device

    def judge(self, answers: Sequence[str], tasks: Sequence[Question]) -> list[float]:
        states = self._states([*answers, *(task.answer for task in tasks)])
        pairs = zip(states[: len(answers)], states[len(answers) :], strict=True)
        return [_f1(given, wanted) for given, wanted in pairs]

    def _states(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Unit vectors of the tokens of each text, ``[n, hidden]``."""
        if not texts:
            return []
        batch = self._tokenizer(
            list(texts),
            return_tensors="pt",
            padding=True,
            truncation=True,
            return_special_tokens_mask=True,
        )
        special = batch.pop("special_tokens_mask").bool()
        with torch.inference_mode():
            outputs = self._model(**batch.to(self._device), output_hidden_states=True)
        states = torch.nn.functional.normalize(outputs.hidden_states[self._layer].float(), dim=-1)
        return [row[~mask] for row, mask in zip(states.cpu(), special, strict=True)]


def _f1(given: torch.Tensor, wanted: torch.Tensor) -> float:
    if not len(given) or not len(wanted):
        return float(len(given) == len(wanted))
    alike = given @ wanted.T
    precision, recall = alike.amax(1).mean().item(), alike.amax(0).mean().item()
    if precision + recall <= 0:
        return 0.0
    return min(max(2 * precision * recall / (precision + recall), 0.0), 1.0)

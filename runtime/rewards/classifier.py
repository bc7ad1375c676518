"""A classifier checkpoint of transformers as process reward model."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from runtime.config.reward_models import ClassifierReward
from runtime.errors import ConfigError, ContextOverflow, EngineFault, WeightsError
from runtime.rewards.base import Reasoning
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

QWEN_PRM = "Qwen2ForProcessRewardModel"
DEFAULT_CONTEXT = 512
"""Tokens, where neither the model nor the configuration sets a limit."""


@dataclass(frozen=True, slots=True)
class _Text:
    """One row of a batch: token ids, and the positions whose labels are read."""

    ids: list[int]
    places: list[int]


class ClassifierModel:
    """Token classifiers are read at the tag after each step, all steps of a chain in one row;
    sequence classifiers read a row for each judged step, up to it.

    ``Qwen2ForProcessRewardModel`` (arXiv 2501.07301) is code in its repository; its body is an
    ordinary Qwen2 and its head two linear layers, so it is assembled here and that code is not
    run.

    Raises at construction: ``WeightsError``, ``ConfigError`` (both name the remedy).
    """

    def __init__(self, config: ClassifierReward) -> None:
        folder = resolve(config.weights, config.sha256)
        self._config = config
        self._device = pick_device(config.device)
        check_tokenizer(folder)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **NO_CODE)
            self._model, self._by_token = _load(folder, config, torch_dtype(config.dtype))
        except (OSError, KeyError, ValueError, ImportError, SafetensorError) as fault:
            raise WeightsError(
                f"{config.weights} is not a classifier that transformers can load "
                f"({without_code(fault)})"
            ) from fault
        self._model.eval().requires_grad_(False).to(self._device)
        text_config = self._model.config.get_text_config()
        self._window = context_length(text_config, config.max_context) or DEFAULT_CONTEXT
        self._tag = self._tag_id() if self._by_token else -1
        self._lock = threading.Lock()

    def _tag_id(self) -> int:
        ids = self._tokenizer.encode(self._config.tag, add_special_tokens=False)
        if len(ids) != 1:
            raise ConfigError(
                f"tag {self._config.tag!r} is {len(ids)} tokens of {self._config.weights}; set "
                "the single-token tag that it was trained with"
            )
        return int(ids[0])

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[list[float]]:
        texts: list[_Text] = []
        for chain in chains:
            texts += self._read(chain)
        values = await asyncio.to_thread(self._judge, texts)
        scores, at = [], 0
        for chain in chains:
            count = len(chain.steps) - chain.since
            scores.append(values[at : at + count])
            at += count
        return scores

    def _read(self, chain: Reasoning) -> list[_Text]:
        """The batch rows of a chain."""
        if len(chain.steps) == chain.since:
            return []
        if not self._by_token:
            ends = range(chain.since + 1, len(chain.steps) + 1)
            return [self._text(self._ids(chain, list(chain.steps[:end]))) for end in ends]
        ids = self._ids(chain, [f"{step}{self._config.tag}" for step in chain.steps])
        places = [i for i, token in enumerate(ids) if token == self._tag][-len(chain.steps) :]
        if len(places) < len(chain.steps):
            raise EngineFault(
                f"{self._config.weights}: a step tag is missing after tokenisation; steps must not "
                "contain the tag"
            )
        return [self._text(ids, places[chain.since :])]

    def _ids(self, chain: Reasoning, steps: list[str]) -> list[int]:
        answer = self._config.between.join(steps)
        if self._tokenizer.chat_template is None or self._config.system is None:
            text = f"{chain.question}\n{answer}"
            return list(self._tokenizer.encode(text))
        turns = [("system", self._config.system), ("user", chain.question), ("assistant", answer)]
        messages = [{"role": role, "content": content} for role, content in turns if content]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _text(self, ids: list[int], places: list[int] | None = None) -> _Text:
        if len(ids) > self._window:
            raise ContextOverflow(self._config.weights, len(ids), self._window)
        return _Text(ids, [len(ids) - 1] if places is None else places)

    def _judge(self, texts: Sequence[_Text]) -> list[float]:
        values: list[float] = []
        # Without a pad token a sequence classifier cannot find the end of a padded text.
        padded = self._by_token or self._model.config.pad_token_id is not None
        size = self._config.max_batch if padded else 1
        with self._lock, torch.inference_mode():
            for start in range(0, len(texts), size):
                try:
                    values += self._pass(texts[start : start + size])
                except FORWARD_FAULTS as fault:
                    reason = f"{type(fault).__name__} in a forward pass: {fault}"
                    raise EngineFault(reason) from fault
        return values

    def _pass(self, texts: Sequence[_Text]) -> list[float]:
        width = max(len(text.ids) for text in texts)
        pad = self._model.config.pad_token_id or 0
        ids = torch.full((len(texts), width), pad)
        seen = torch.zeros((len(texts), width), dtype=torch.long)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
            seen[row, : len(text.ids)] = 1
        output = self._model(
            input_ids=ids.to(self._device), attention_mask=seen.to(self._device)
        ).logits.float()
        if self._by_token:
            wanted = [(row, place) for row, text in enumerate(texts) for place in text.places]
            rows, places = zip(*wanted, strict=True)
            logits = output[list(rows), list(places)]
        else:
            logits = output
        good = self._config.good
        if logits.shape[-1] == 1:
            shares = logits[:, 0].sigmoid()
        else:
            shares = logits.softmax(dim=-1)[:, good]
        if bool(shares.isnan().any()):
            raise EngineFault(f"{self._config.weights} computes NaN; load it in float32")
        return [float(value) for value in shares.cpu()]

    async def check(self) -> None:
        """A classifier runs in this process; it can serve as long as the process does."""

    async def close(self) -> None:
        """Waits for a running forward pass."""
        await asyncio.to_thread(self._lock.acquire)
        self._lock.release()


class _QwenPrm(torch.nn.Module):
    """A Qwen2 base model and the head Linear - ReLU - Linear over its states."""

    def __init__(self, body: Any, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.body, self.config = body, body.config
        first, second = weights["score.0.weight"], weights["score.2.weight"]
        self.score = torch.nn.Sequential(
            torch.nn.Linear(first.shape[1], first.shape[0]),
            torch.nn.ReLU(),
            torch.nn.Linear(second.shape[1], second.shape[0]),
        ).to(first.dtype)
        self.score.load_state_dict({name.removeprefix("score."): w for name, w in weights.items()})

    def forward(self, **inputs: torch.Tensor) -> _Logits:
        states = self.body(**inputs).last_hidden_state
        return _Logits(self.score(states.to(self.score[0].weight.dtype)))


@dataclass(frozen=True, slots=True)
class _Logits:
    logits: torch.Tensor


def _load(folder: Path, config: ClassifierReward, dtype: torch.dtype) -> tuple[Any, bool]:
    """The model, and whether it is a token classifier."""
    model_config = json.loads((folder / "config.json").read_text())
    name = (model_config.get("architectures") or [""])[0]
    weights = config.weights
    if name == QWEN_PRM:
        body = load_pretrained(AutoModel, folder, weights, dtype=dtype)
        return _QwenPrm(body, _head(folder, weights, dtype)), True
    if name.endswith("ForTokenClassification"):
        auto = AutoModelForTokenClassification
        return load_pretrained(auto, folder, weights, dtype=dtype), True
    if name.endswith("ForSequenceClassification"):
        auto = AutoModelForSequenceClassification
        return load_pretrained(auto, folder, weights, dtype=dtype), False
    raise ConfigError(
        f"{config.weights} holds a {name or 'model without a name'}: a classifier reward model is "
        f"a …ForTokenClassification, a …ForSequenceClassification or a {QWEN_PRM}; for a causal "
        "LM with step tags use type: step-tags"
    )


def _head(folder: Path, weights: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    head: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors = load_file(file)
        head |= {name: w.to(dtype) for name, w in tensors.items() if name.startswith("score.")}
    if not {"score.0.weight", "score.2.weight"} <= set(head):
        raise WeightsError(f"{weights} has no head score.0, score.2; is it a {QWEN_PRM}?")
    return head

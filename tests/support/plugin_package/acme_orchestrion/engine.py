"""The engine: imported in the process that serves it, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from acme_orchestrion.config import FixedEngine
from runtime.engines.scripted.base import ScriptedLM, weighted_row
from runtime.tokenization.tokenizer import vocabulary_tokenizer
from runtime.types.outputs import Tokens

TEMPLATE = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}<assistant>"


class FixedLM(ScriptedLM):
    """Its tokens are single bytes, and a byte's value is its id."""

    def __init__(self, config: FixedEngine) -> None:
        tokenizer = vocabulary_tokenizer((), ("<user>", "<assistant>"))
        super().__init__("fixed", replace(tokenizer, chat_template=TEMPLATE), config.context_length)
        self._answer = config.answer.encode()
        self._assistant = self._tokenizer.token_id("<assistant>")

    def row(self, context: Tokens) -> np.ndarray:
        written = list(reversed(context)).index(self._assistant)
        rest = self._answer[written:]
        token = rest[0] if rest else self._spec.eos_ids[0]
        return weighted_row({token: 1.0}, self._spec.vocab_size, 1e-6)

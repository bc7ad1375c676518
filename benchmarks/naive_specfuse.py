"""SpecFuse as published codes run it: the whole context is re-encoded for every draft and every
verification; the models of a round work in parallel threads. Same decisions as policies/span.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from policies.span.specfuse import SpecFuseConfig, leaving
from runtime.text.words import cut_partial_word
from runtime.tokenization.tokenizer import Tokenizer


@dataclass
class Naive:
    """One model without any cache between calls."""

    tokenizer: Tokenizer
    model: torch.nn.Module

    @classmethod
    def load(cls, folder: Path) -> Naive:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return cls(Tokenizer.from_folder(folder), model.eval())

    @torch.inference_mode()
    def draft(self, prompt: str, answer: str, tokens: int) -> str:
        """Greedy, never EOS; a last word that may be unfinished is cut."""
        ids = self.tokenizer.encode_prompt(prompt) + self.tokenizer.encode(answer)
        out = self.model.generate(  # type: ignore[operator]
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=tokens,
            do_sample=False,
            suppress_tokens=list(self.tokenizer.eos_ids),
            pad_token_id=0,
        )
        written = out[0, len(ids) :].tolist()
        whole = self.tokenizer.whole_characters(written)
        return cut_partial_word(self.tokenizer.decode(written[:whole]))

    @torch.inference_mode()
    def score(self, prompt: str, answer: str, span: str) -> float:
        """Mean token probability of ``span``."""
        before = self.tokenizer.encode(answer)
        after = self.tokenizer.encode(answer + span)
        same = next(
            (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
            min(len(before), len(after)),
        )
        ids = self.tokenizer.encode_prompt(prompt) + after
        start = len(ids) - len(after) + same
        logits = self.model(torch.tensor([ids])).logits[0].float()
        logprobs = torch.log_softmax(logits, dim=-1)
        values = [logprobs[i - 1, ids[i]].exp().item() for i in range(start, len(ids))]
        return sum(values) / len(values)


def write(models: Mapping[str, Naive], prompt: str, max_tokens: int, reporter: str) -> str:
    """One greedy answer of ``max_tokens`` tokens of the reporting model."""
    config = SpecFuseConfig(members=tuple(models))
    active, quality = list(models), dict.fromkeys(models, 0.0)
    answer = ""
    with ThreadPoolExecutor(len(models)) as pool:
        while len(models[reporter].tokenizer.encode(answer)) < max_tokens:
            drafting = {
                name: pool.submit(models[name].draft, prompt, answer, config.segment_tokens)
                for name in active
            }
            drafts = {name: work.result() for name, work in drafting.items()}
            candidates = list(dict.fromkeys(drafts.values()))
            if len(candidates) == 1:
                answer += candidates[0]
                continue
            scoring = [
                [pool.submit(models[name].score, prompt, answer, text) for text in candidates]
                for name in active
            ]
            table = [[work.result() for work in row] for row in scoring]
            means = [sum(column) / len(table) for column in zip(*table, strict=True)]
            for name, text in drafts.items():
                quality[name] += means[candidates.index(text)]
            gone = leaving({name: quality[name] for name in active}, config.exit_fraction)
            active = [name for name in active if name not in gone]
            answer += candidates[max(range(len(means)), key=means.__getitem__)]
    ids = models[reporter].tokenizer.encode(answer)[:max_tokens]
    return models[reporter].tokenizer.decode(ids)

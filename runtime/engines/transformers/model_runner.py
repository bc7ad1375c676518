"""The forward pass: chunks of many sequences in, their logprobs, tokens and states out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from runtime.engines.sampling import pick
from runtime.engines.transformers.logits_cache import LogitsCache, tops
from runtime.engines.transformers.ragged_attention import Piece, Plan, planned
from runtime.engines.transformers.router_confidence import confidences
from runtime.engines.transformers.sequence import Row, TokenSequence
from runtime.errors import EngineFault
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.outputs import ALL, Distribution

MAX_CACHED_ROWS: Final = 64
"""A pass with more rows is not cached: the rows of a long scored text are rarely read again."""
SHARED_ROWS: Final = 16
"""Up to so many rows of a pass are cached as views, without a copy."""


class ModelRunner:
    """A loaded model whose attention is ``ragged_attention``."""

    def __init__(
        self,
        model: Any,
        device: torch.device,
        tokenizer: Tokenizer,
        eos_ids: tuple[int, ...],
        logits_cache: LogitsCache,
    ) -> None:
        self._model, self._device, self._eos_ids = model, device, eos_ids
        self._tokenizer, self._logits_cache = tokenizer, logits_cache
        self._hidden: torch.Tensor | None = None
        model.base_model.register_forward_hook(self._keep_hidden)

    def _keep_hidden(self, module: Any, args: Any, output: Any) -> None:
        self._hidden = output[0]

    def step(self, work: Sequence[tuple[TokenSequence, int]]) -> None:
        """Computes the given number of next tokens of each sequence and adds the results to it.

        Raises ``EngineFault`` for NaN, and whatever the model raises.
        """
        ids: list[int] = []
        positions: list[int] = []
        keep: list[int] = []
        rows: list[Row] = []
        with_states: list[tuple[TokenSequence, slice]] = []
        pieces: list[Piece] = []
        for sequence, length in work:
            assert sequence.kv is not None
            stop = sequence.done + length
            offset = len(ids) - sequence.done
            ids += sequence.known[sequence.done : stop]
            positions += range(sequence.done, stop)
            wanted = sequence.rows(length)
            rows += wanted
            keep += [offset + row.position for row in wanted]
            first = sequence.states_from
            if first is not None and stop > first:
                start = offset + max(first, sequence.done)
                with_states.append((sequence, slice(start, offset + stop)))
            pieces.append(Piece(sequence.kv, sequence.done, length))
        with planned(Plan(pieces)):
            logits = self._model(
                input_ids=torch.tensor([ids], device=self._device),
                position_ids=torch.tensor([positions], device=self._device),
                use_cache=False,
                logits_to_keep=torch.tensor(keep, dtype=torch.long, device=self._device),
            ).logits[0]
        hidden, self._hidden = self._hidden, None
        for sequence, length in work:
            sequence.done += length
        assert hidden is not None
        if rows:
            self._read(logits, rows, hidden[0], keep)
        for sequence, places in with_states:
            sequence.states += list(hidden[0, places].float().cpu().numpy())

    def _read(
        self, raw: torch.Tensor, rows: list[Row], hidden: torch.Tensor, keep: list[int]
    ) -> None:
        """``raw``: ``[rows, vocab]``; ``hidden[keep]`` are the states before them."""
        logits = raw.float()
        norms = torch.logsumexp(logits, dim=-1)
        if bool(norms.isnan().any()):
            raise EngineFault("the model computes NaN; load it in float32 or check its weights")
        targets = self._targets(logits, rows)
        deferred = self._apply_deferral(targets, rows, logits, norms, hidden, keep)
        index = torch.tensor(targets, device=logits.device)[:, None]
        logprobs = (logits.gather(1, index)[:, 0] - norms).tolist()
        alternatives = self._tops(logits, norms, rows)
        for i, row in enumerate(rows):
            if i in deferred:
                row.sequence.defer()
            else:
                row.sequence.accept(row, targets[i], logprobs[i], alternatives.get(i))

    def _apply_deferral(
        self,
        targets: list[int],
        rows: list[Row],
        logits: torch.Tensor,
        norms: torch.Tensor,
        hidden: torch.Tensor,
        keep: list[int],
    ) -> set[int]:
        """Replaces sampled targets by offered tokens where the confidence is too low; returns the
        rows that defer, because no token was offered."""
        places = [
            i
            for i, row in enumerate(rows)
            if row.sequence.deferral is not None and row.target is None
        ]
        if not places:
            return set()
        states = hidden[[keep[i] for i in places]]
        values = confidences([rows[i] for i in places], logits[places], norms[places], states)
        deferred: set[int] = set()
        for i, value in zip(places, values, strict=True):
            deferral = rows[i].sequence.deferral
            assert deferral is not None
            token = deferral.choose(value, targets[i])
            if token is None:
                deferred.add(i)
            else:
                targets[i] = token
        return deferred

    def _targets(self, logits: torch.Tensor, rows: list[Row]) -> list[int]:
        """The known next token of each row, or the sampled one."""
        targets: list[int] = []
        greedy: list[int] = []
        for i, row in enumerate(rows):
            target, sampling = row.target, row.sequence.sampling
            if target is None and sampling is not None:
                if sampling.temperature == 0 and not sampling.ignore_eos:
                    greedy.append(i)
                    target = 0
                else:
                    banned = self._eos_ids if sampling.ignore_eos else ()
                    keyed = sampling.text_noise_from is not None
                    keys = self._tokenizer.noise_keys if keyed else None
                    line = logits[i].cpu().numpy()
                    target = pick(line, sampling, row.position + 1, banned, keys)
            targets.append(target or 0)
        if greedy:
            # argmax gives the first of equals, the lowest id.
            for i, token in zip(greedy, logits[greedy].argmax(dim=-1).tolist(), strict=True):
                targets[i] = token
        return targets

    def _tops(
        self, logits: torch.Tensor, norms: torch.Tensor, rows: list[Row]
    ) -> dict[int, Distribution]:
        by_k: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            if row.sequence.top_k and row.position >= row.sequence.top_from:
                by_k.setdefault(row.sequence.top_k, []).append(i)
        alternatives: dict[int, Distribution] = {}
        for k, places in by_k.items():
            wanted = [rows[i].sequence.wanted(rows[i].position) for i in places]
            best = tops(logits[places], norms[places], k, wanted)
            alternatives.update(zip(places, best, strict=True))
            if k != ALL and len(places) <= MAX_CACHED_ROWS:
                for i, norm in zip(places, norms[places].tolist(), strict=True):
                    # A view keeps the logits of its whole pass in memory.
                    line = logits[i].clone() if len(rows) > SHARED_ROWS else logits[i]
                    self._logits_cache.put(rows[i].context, line, norm)
        return alternatives

"""The scheduler: one thread runs the calls of one model in shared forward passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from runtime.engines.transformers.kv_cache import KeyValues, PrefixCache, Shape, capacity_for
from runtime.engines.transformers.radix_tree import common_prefix
from runtime.engines.transformers.sequence import Call, TokenSequence
from runtime.errors import EngineFault, Overloaded
from runtime.weights.torch_models import FORWARD_FAULTS

WORTH_WAITING = 16
"""A sequence waits for a running one that will compute at least so many more tokens of its
prefix."""


Step = Callable[[Sequence[tuple[TokenSequence, int]]], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a scheduler."""

    max_batch_tokens: int
    max_sequences: int
    max_queue: int
    cache_bytes: int
    """Bound of cached plus running keys and values; running sequences have precedence."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Current state of a scheduler."""

    queued: int
    """Calls without a started sequence."""
    running: int
    """Sequences in a slot."""
    cached: int
    cached_bytes: int


class Scheduler:
    """Accepts calls from any thread and resolves their futures.

    Each pass runs the sequences that need one token first, then chunks of longer ones, so that a
    long prompt never delays decoding.
    """

    def __init__(self, name: str, step: Step, shape: Shape, limits: Limits) -> None:
        self._name, self._step, self._shape, self._limits = name, step, shape, limits
        self._cache = PrefixCache(limits.cache_bytes)
        self._wake = threading.Condition()
        self._inbox: list[Call[Any]] = []
        self._queued = 0
        self._closing = False
        self._waiting: list[TokenSequence] = []
        self._running: list[TokenSequence] = []
        self._passes = 0
        self._thread = threading.Thread(target=self._run, name=f"engine {name}", daemon=True)
        self._thread.start()

    def submit(self, call: Call[Any]) -> None:
        """Queues a call. Raises ``Overloaded``, or ``EngineFault`` when closed."""
        with self._wake:
            if self._closing:
                raise EngineFault(f"the engine of {self._name!r} is closed")
            if self._queued >= self._limits.max_queue:
                raise Overloaded(f"the queue of {self._name!r}")
            self._inbox.append(call)
            self._queued += 1
            self._wake.notify()

    def cancel(self, call: Call[Any]) -> None:
        """Frees the call's queue place at once and its slots before the next pass."""
        with self._wake:
            self._end(call)
            self._wake.notify()

    def check(self) -> None:
        if not self._thread.is_alive():
            raise EngineFault(f"the scheduler thread of {self._name!r} has ended")

    def close(self) -> None:
        """Ends the thread after its current pass; pending calls fail."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    @property
    def occupancy(self) -> Occupancy:
        return Occupancy(self._queued, len(self._running), len(self._cache), self._cache.bytes)

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._collect():
                    self._drop_ended()
                    self._admit()
                    work = self._schedule()
                    if work:
                        self._pass(work)
        finally:
            self._abandon()

    def _collect(self) -> bool:
        """Waits for work; false when the thread must end."""
        with self._wake:
            while not (self._closing or self._inbox or self._waiting or self._running):
                self._wake.wait()
            for call in self._inbox:
                self._waiting += call.sequences
            self._inbox.clear()
            return not self._closing

    def _drop_ended(self) -> None:
        self._waiting = [s for s in self._waiting if not s.call.over]
        for sequence in [s for s in self._running if s.call.over]:
            self._retire(sequence)

    def _admit(self) -> None:
        """Gives free slots to waiting sequences in order of arrival, except those that wait for a
        running one to compute their prefix."""
        held: list[TokenSequence] = []
        for place, sequence in enumerate(self._waiting):
            if len(self._running) >= self._limits.max_sequences:
                held += self._waiting[place:]
                break
            try:
                started = sequence.call.over or self._start(sequence)
            except (RuntimeError, MemoryError) as fault:
                self._cache.shrink(0)
                self._fail(sequence.call, f"out of memory for keys and values: {fault}")
                continue
            if not started:
                held.append(sequence)
        self._waiting = held

    def _start(self, sequence: TokenSequence) -> bool:
        if sequence.waits_for is not None:
            donor, needed = sequence.waits_for
            if donor.done < needed and donor in self._running:
                return False
        entry, shared = self._cache.longest(sequence.ids)
        best, future = min(shared, sequence.reuse), 0
        source: TokenSequence | None = None
        for other in self._running:
            common = min(common_prefix(other.ids, sequence.ids), sequence.reuse, other.feed)
            if min(common, other.done) > best:
                best, source = min(common, other.done), other
            if common > other.done and common > future:
                future, sequence.waits_for = common, (other, common)
        if future - best >= WORTH_WAITING:
            return False
        sequence.waits_for = None
        if source is not None and source.kv is not None:
            sequence.kv = self._fork(source.kv, best, sequence)
        elif entry is not None and best > 0:
            if shared == entry.length:
                sequence.kv = self._cache.take(entry)
            else:
                sequence.kv = self._fork(entry.kv, best, sequence)
        else:
            self._make_room(sequence.expected)
            sequence.kv = KeyValues(self._shape, sequence.expected)
        sequence.done = sequence.cached = best
        self._running.append(sequence)
        with self._wake:
            if sequence.call.queued:
                sequence.call.queued = False
                self._queued -= not sequence.call.over
        return True

    def _fork(self, kv: KeyValues, held: int, sequence: TokenSequence) -> KeyValues:
        self._make_room(sequence.expected)
        return kv.fork(held, sequence.expected)

    def _make_room(self, tokens: int) -> None:
        self._cache.shrink(self._cache_bound() - self._shape.bytes(capacity_for(tokens)))

    def _cache_bound(self) -> int:
        live = sum(s.kv.bytes for s in self._running if s.kv is not None)
        return self._limits.cache_bytes - live

    def _schedule(self) -> list[tuple[TokenSequence, int]]:
        """The next pass: single tokens first (longest waiting first), then prompts in order of
        arrival."""
        left = self._limits.max_batch_tokens
        work: list[tuple[TokenSequence, int]] = []

        def order(sequence: TokenSequence) -> tuple[bool, int]:
            long = sequence.pending > 1
            return long, 0 if long else sequence.last_pass

        for sequence in sorted(self._running, key=order):
            length = min(sequence.pending, left)
            if length == 0:
                break
            work.append((sequence, length))
            left -= length
        return work

    def _pass(self, work: list[tuple[TokenSequence, int]]) -> None:
        self._passes += 1
        try:
            for sequence, length in work:
                sequence.last_pass = self._passes
                self._grow(sequence, sequence.done + length)
            self._step(work)
        except FORWARD_FAULTS as fault:
            # The buffers are invalid now, and out of memory is the likeliest reason.
            self._cache.shrink(0)
            reason = f"{type(fault).__name__} in a forward pass: {fault}"
            for sequence, _ in work:
                sequence.done = 0
                self._fail(sequence.call, reason)
            return
        for sequence, _ in work:
            if sequence.complete:
                self._retire(sequence)
        for call in {id(sequence.call): sequence.call for sequence, _ in work}.values():
            if not call.over and all(s.complete for s in call.sequences):
                self._end(call)
                call.future.set_result(call.result())

    def _grow(self, sequence: TokenSequence, tokens: int) -> None:
        assert sequence.kv is not None
        if tokens > sequence.kv.capacity:
            self._make_room(tokens)
            sequence.kv.reserve(tokens, sequence.done)

    def _retire(self, sequence: TokenSequence) -> None:
        """Frees a slot; the computed keys and values go to the cache."""
        self._running.remove(sequence)
        kv, sequence.kv = sequence.kv, None
        if kv is not None:
            ids = np.asarray(sequence.known[: sequence.done], dtype=np.int64)
            self._cache.put(ids, kv, self._cache_bound())

    def _end(self, call: Call[Any]) -> None:
        with self._wake:
            if call.queued and not call.over:
                self._queued -= 1
            call.over = True

    def _fail(self, call: Call[Any], reason: str) -> None:
        if not call.over:
            self._end(call)
            call.future.set_exception(EngineFault(reason))

    def _abandon(self) -> None:
        with self._wake:
            self._closing = True
            calls = [*self._inbox, *(s.call for s in self._waiting + self._running)]
            self._inbox.clear()
        for call in calls:
            self._fail(call, f"the engine of {self._name!r} was closed")
        self._waiting.clear()
        self._running.clear()
        self._cache.shrink(0)

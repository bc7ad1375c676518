"""The batching loop with a forward pass that the test opens and closes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest
import torch

from runtime.engines.sampling import Ending
from runtime.engines.transformers.kv_cache import Shape
from runtime.engines.transformers.scheduler import Limits, Scheduler
from runtime.engines.transformers.sequence import Call, TokenSequence
from runtime.errors import EngineFault, Overloaded
from runtime.types.sampling import Sampling

SHAPE = Shape(1, 1, 1, torch.float32, torch.device("cpu"))


class Gate:
    """A forward pass that waits for the test, writes token 7, and breaks on token 666."""

    def __init__(self) -> None:
        self.open = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.passes: list[list[tuple[int, int]]] = []

    def step(self, work: Sequence[tuple[TokenSequence, int]]) -> None:
        self.entered.release()
        self.open.acquire()
        self.passes.append([(s.known[0], length) for s, length in work])
        if any(666 in s.known for s, _ in work):
            raise RuntimeError("broken")
        for sequence, length in work:
            rows = sequence.rows(length)
            sequence.done += length
            for row in rows:
                sequence.accept(row, 7, -1.0, None)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.release(1000)


def loop_on(gate: Gate, **changes: int) -> Scheduler:
    limits = {"max_batch_tokens": 16, "max_sequences": 4, "max_queue": 2, "cache_bytes": 0}
    return Scheduler("m", gate.step, SHAPE, Limits(**(limits | changes)))


def writing(first: int, length: int = 1, tokens: int = 1) -> Call[tuple[int, ...]]:
    sampling = Sampling(max_tokens=tokens)
    sequence = TokenSequence(
        [first] * length, feed=length, rows_from=length - 1,
        sampling=sampling, ending=Ending(sampling, (), [], tokens),
    )  # fmt: skip
    return Call([sequence], lambda: tuple(sequence.known[length:]))


def enter(gate: Gate) -> None:
    assert gate.entered.acquire(timeout=60)


def test_cancelling_frees_the_queue_at_once_and_the_slot_before_the_next_pass(gate: Gate) -> None:
    loop = loop_on(gate, max_sequences=1)
    running, waiting, last = writing(1, tokens=99), writing(2), writing(3)
    loop.submit(running)
    enter(gate)
    loop.submit(waiting)
    loop.submit(last)
    assert (loop.occupancy.running, loop.occupancy.queued) == (1, 2)
    loop.cancel(waiting)
    assert loop.occupancy.queued == 1
    loop.cancel(running)
    gate.open.release(2)
    assert last.future.result(timeout=60) == (7,)
    assert gate.passes == [[(1, 1)], [(3, 1)]]
    assert (loop.occupancy.running, loop.occupancy.queued) == (0, 0)
    loop.close()


def test_a_full_queue_refuses_at_once(gate: Gate) -> None:
    loop = loop_on(gate, max_sequences=1)
    first = writing(1)
    loop.submit(first)
    enter(gate)
    others = [writing(2), writing(3)]
    for call in others:
        loop.submit(call)
    with pytest.raises(Overloaded):
        loop.submit(writing(4))
    gate.open.release(3)
    assert [c.future.result(timeout=60) for c in (first, *others)] == [(7,)] * 3
    loop.submit(writing(5))
    gate.open.release()
    loop.close()


def test_a_fault_in_a_pass_fails_its_calls_and_the_loop_lives_on(gate: Gate) -> None:
    loop = loop_on(gate, max_sequences=1)
    broken, sound = writing(666), writing(1)
    gate.open.release(2)
    loop.submit(broken)
    loop.submit(sound)
    with pytest.raises(EngineFault, match="RuntimeError in a forward pass: broken"):
        broken.future.result(timeout=60)
    assert sound.future.result(timeout=60) == (7,)
    loop.check()
    loop.close()


def test_a_call_without_room_for_its_keys_fails_and_the_loop_lives_on(gate: Gate) -> None:
    endless = Shape(10**6, 10**6, 10**6, torch.float32, torch.device("cpu"))
    loop = Scheduler("m", gate.step, endless, Limits(16, 4, 2, 0))
    for _ in range(3):
        call = writing(1)
        loop.submit(call)
        with pytest.raises(EngineFault, match="out of memory for keys and values"):
            call.future.result(timeout=60)
    loop.check()
    assert (loop.occupancy.running, loop.occupancy.queued) == (0, 0)
    loop.close()


def test_a_sequence_that_writes_is_in_every_pass_of_a_long_prompt(gate: Gate) -> None:
    loop = loop_on(gate)
    short, long = writing(1, tokens=5), writing(2, length=60)
    loop.submit(short)
    enter(gate)
    loop.submit(long)
    gate.open.release(5)
    assert long.future.result(timeout=60) == (7,)
    assert short.future.result(timeout=60) == (7,) * 5
    pieces = [(2, 15), (2, 15), (2, 15), (2, 15)]
    assert gate.passes == [[(1, 1)], *([(1, 1), piece] for piece in pieces)]
    loop.close()


def test_more_writers_than_a_pass_holds_take_turns(gate: Gate) -> None:
    loop = loop_on(gate, max_batch_tokens=16, max_sequences=20, max_queue=20)
    first = writing(99)
    loop.submit(first)
    enter(gate)
    calls = [writing(i, tokens=2) for i in range(20)]
    for call in calls:
        loop.submit(call)
    gate.open.release(4)
    for call in calls:
        assert call.future.result(timeout=60) == (7, 7)
    assert [len(work) for work in gate.passes] == [1, 16, 16, 8]
    loop.close()


def test_closing_fails_what_is_pending_and_ends_the_thread(gate: Gate) -> None:
    loop = loop_on(gate, max_sequences=1)
    running, waiting = writing(1, tokens=99), writing(2)
    loop.submit(running)
    enter(gate)
    loop.submit(waiting)
    closer = threading.Thread(target=loop.close)
    closer.start()
    gate.open.release(1000)
    closer.join(timeout=60)
    for call in (running, waiting):
        with pytest.raises(EngineFault, match="closed"):
            call.future.result(timeout=60)
    with pytest.raises(EngineFault, match="has ended"):
        loop.check()
    with pytest.raises(EngineFault, match="closed"):
        loop.submit(writing(3))


async def test_cancelling_the_awaiting_task_leaves_the_loop_whole(gate: Gate) -> None:
    loop = loop_on(gate, max_sequences=1)
    call = writing(1, tokens=3)
    loop.submit(call)

    async def answer() -> tuple[int, ...]:
        return await call.wait()

    task = asyncio.create_task(answer())
    await asyncio.to_thread(enter, gate)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open.release(3)
    assert await asyncio.to_thread(call.future.result, 60) == (7, 7, 7)
    loop.check()
    loop.close()

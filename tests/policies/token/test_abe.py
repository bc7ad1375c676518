"""Members that agree on bytes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from policies.token import abe
from policies.token.numerics.agreement import END, Hypothesis, Offer, active, agree, may_follow
from tests.support.local_stack import animals, answers

NEW = Hypothesis(0, 0, 0.0)


def offer(**shares: float) -> Offer:
    names = sorted(shares, key=lambda name: -shares[name])
    tokens = [END if name == "end" else name.encode() for name in names]
    logprobs = np.log([shares[name] for name in names])
    return Offer(np.arange(len(names)), tokens, logprobs)


def chosen(offers: dict[str, Offer], rests: dict[str, bytes], **more: object) -> list[bytes]:
    hypotheses = {name: NEW for name in offers}
    places = agree(offers, rests, hypotheses, dict.fromkeys(offers, 1.0))
    return [] if places is None else [offers[n].tokens[p] for n, p in places.items()]


def test_texts_agree_when_each_begins_the_longest() -> None:
    offers = {"a": offer(cat=0.6, do=0.4), "b": offer(d=0.5, c=0.3, dog=0.2)}
    # cat + c: log 0.6 * 0.3 = 0.18; do + d: 0.4 * 0.5 = 0.20
    assert chosen(offers, {"a": b"", "b": b""}) == [b"do", b"d"]


def test_who_is_behind_spells_the_rest_and_may_go_beyond() -> None:
    offers = {"a": offer(at=0.9, a=0.1), "b": offer(a=0.2, ats=0.8)}
    assert chosen(offers, {"a": b"at", "b": b"at"}) == [b"at", b"ats"]


def test_an_end_agrees_with_ends_only() -> None:
    offers = {"a": offer(end=0.6, x=0.4), "b": offer(x=0.9, end=0.1)}
    # end + end: 0.06; x + x: 0.36
    assert chosen(offers, {"a": b"", "b": b""}) == [b"x", b"x"]
    offers = {"a": offer(end=0.9, x=0.1), "b": offer(x=0.3, end=0.7)}
    assert chosen(offers, {"a": b"", "b": b""}) == [END, END]
    assert chosen({"a": offer(end=1.0), "b": offer(x=1.0)}, {"a": b"", "b": b""}) == []


def test_the_best_of_all_combinations_is_found() -> None:
    random = np.random.default_rng(3)
    words = [b"a", b"ab", b"abc", b"b", b"bc", b"c"]
    for _ in range(50):
        offers = {}
        for name in "xyz":
            kept = [w for w in words if random.random() < 0.8] or [b"a"]
            logprobs = np.sort(np.log(random.dirichlet(np.ones(len(kept)))))[::-1]
            order = random.permutation(len(kept))
            offers[name] = Offer(np.arange(len(kept)), [kept[i] for i in order], logprobs)
        value = {name: dict(zip(o.tokens, o.logprobs, strict=True)) for name, o in offers.items()}
        best = max(
            (
                value["x"][x] + value["y"][y] + value["z"][z]
                for x in value["x"]
                for y in value["y"]
                for z in value["z"]
                if all(max(x, y, z, key=len).startswith(t) for t in (x, y, z))
            ),
            default=None,
        )
        found = chosen(offers, {"x": b"", "y": b"", "z": b""})
        if best is None:
            assert found == []
        else:
            total = sum(value[name][token] for name, token in zip("xyz", found, strict=True))
            assert abs(total - best) < 1e-12


def test_what_may_follow() -> None:
    assert may_follow(b"ca", b"cat", closed=False)
    assert may_follow(b"cats", b"cat", closed=False)
    assert not may_follow(b"cats", b"cat", closed=True)
    assert not may_follow(b"do", b"cat", closed=False)
    assert may_follow(END, b"", closed=True) and not may_follow(END, b"cat", closed=True)


def test_members_that_are_ahead_wait() -> None:
    known = {"a": Hypothesis(3, 1, -1.0), "b": Hypothesis(1, 1, -1.0), "c": Hypothesis(3, 2, -1.0)}
    assert active(known, 3) == ["b"]
    known["b"] = Hypothesis(3, 2, -2.0)
    assert active(known, 3) == ["a", "b", "c"]
    known["c"] = Hypothesis(3, 3, -2.0, ended=True)
    assert active(known, 3) == ["a", "b"]


async def test_two_vocabularies_write_one_text() -> None:
    config = animals(abe={"type": "abe"})
    answer = await answers(config, "abe", max_tokens=20)
    # Whole words and pieces of words; the cat model prefers cats 3 : 2, the other dogs 9 : 1.
    assert answer.text == " the dog ran."
    assert answer.end.stop_reason == "eos"
    assert not answer.summary["warnings"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_long_offers_are_weighed_in_a_thread(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token of each never agrees after " the": then both tell all of theirs."""
    decide, sizes = abe._Agreement._decide, []

    def noted(self: Any, result: Any, *rest: Any) -> Any:
        in_thread = threading.current_thread() is not threading.main_thread()
        sizes.append((sum(len(row.logprobs) for row in result.values()), in_thread))
        return decide(self, result, *rest)

    monkeypatch.setattr(abe._Agreement, "_decide", noted)
    await answers(animals(abe={"type": "abe", "top_k": 1}), "abe", temperature=temperature)
    assert {in_thread for size, in_thread in sizes if size > abe.LONG} == {True}
    assert {in_thread for size, in_thread in sizes if size <= abe.LONG} == {False}


async def test_draws_repeat_with_their_seed_and_differ_with_another() -> None:
    config = animals(abe={"type": "abe"})
    texts = [
        (await answers(config, "abe", max_tokens=20, temperature=1.0, seed=seed)).text
        for seed in (1, 1, 2, 3, 4, 5)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    # Whatever is drawn, both vocabularies could spell it.
    assert all(text.startswith(" t") for text in texts if text)

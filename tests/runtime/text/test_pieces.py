"""Texts written piece by piece."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.text.pieces import PieceContext, spell
from tests.support.models.tokenizers import names
from tests.support.models.tokenizers import tokenizer as small

TEXT = (
    "The café of Zoë isn’t far: 12.5 km — ну вот 東京 👍🏽 end.\nNext line, <b>bold</b> word\n\n  x"
)


def cuts(text: str, seed: int) -> list[bytes]:
    """The text's bytes in pieces of 1 to 5, also inside characters."""
    random, data, pieces = np.random.default_rng(seed), text.encode(), []
    while data:
        size = int(random.integers(1, 6))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def words(text: str) -> list[bytes]:
    """Whole words with the space before them."""
    head, *rest = text.split(" ")
    return [head.encode(), *((" " + word).encode() for word in rest)]


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("seed", range(4))
def test_the_ids_follow_from_the_pieces_alone(name: str, seed: int) -> None:
    tokenizer = small(name)
    start = tokenizer.encode_prompt("Say: ")
    pieces = cuts(TEXT, seed) if seed else words(TEXT)
    one_by_one = PieceContext(tokenizer, start)
    for at, piece in enumerate(pieces):
        ahead = one_by_one.ahead(pieces[at : at + 7])
        forked = PieceContext(tokenizer, start, pieces[:at])
        assert one_by_one.ids == forked.ids == ahead.base + ahead.tails[0]
        for j in range(1, len(ahead.tails)):
            known = PieceContext(tokenizer, start, pieces[: at + j])
            assert known.ids == ahead.base + ahead.tails[j]
        one_by_one.append(piece)
    assert tokenizer.decode_bytes(one_by_one.ids[len(start) :]) == TEXT.encode()


@pytest.mark.parametrize("name", names())
def test_every_place_lies_on_a_branch(name: str) -> None:
    tokenizer = small(name)
    context = PieceContext(tokenizer, tokenizer.encode_prompt("Say: "))
    pieces = cuts(TEXT, 9)[:24]
    ahead = context.ahead(pieces)
    for places in (range(len(pieces)), [3, 11], [5]):
        cover = ahead.cover(list(places))
        assert set(cover.places) == set(places)
        for place, (branch, at) in cover.places.items():
            assert cover.prompt + cover.branches[branch][:at] == ahead.base + ahead.tails[place]


@pytest.mark.parametrize("name", names())
def test_a_closed_word_is_spelled_as_the_tokenizer_would(name: str) -> None:
    tokenizer = small(name)
    if not tokenizer.splits.space:
        pytest.skip("this tokenizer proves no borders; it stays piece by piece")
    context = PieceContext(tokenizer, tokenizer.encode_prompt("Say: "))
    start = len(context.ids)
    for piece in (b"wo", b"rd", b"s", b" ", b"ne"):
        context.append(piece)
    assert context.ids[start:][: len(tokenizer.encode("words"))] == tokenizer.encode("words")


@pytest.mark.parametrize("name", names())
def test_borders_are_where_its_own_tokens_end(name: str) -> None:
    tokenizer = small(name)
    context = PieceContext(tokenizer, tokenizer.encode_prompt("Say: "))
    own = tokenizer.encode("some words here")
    ahead, borders = context.spelled([tokenizer.token_bytes[i] for i in own])
    assert all(borders)
    assert [len(tail) for tail in ahead.tails] == list(range(len(own) + 1))
    _, inside = context.spelled([b"s", b"ome words", b" he", b"re"])
    ends = {0}
    for token in own:
        ends.add(max(ends) + len(tokenizer.token_bytes[token]))
    assert inside[:4] == [at in ends for at in (0, 1, 10, 13)]


@pytest.mark.parametrize("name", names())
def test_bytes_are_spelled_exactly(name: str) -> None:
    tokenizer = small(name)
    for data in (b"the", b" the", "é".encode(), "é".encode()[:1], b"\xf0\x9f", b"a\xffb", b" "):
        assert tokenizer.decode_bytes(spell(tokenizer, data)) == data
    for token in range(0, tokenizer.vocab_size, 7):
        data = tokenizer.token_bytes[token]
        if data and token not in tokenizer.special_ids:
            assert len(spell(tokenizer, data)) == 1

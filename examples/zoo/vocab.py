"""Tokenizers that merge within words only, as those of real LLMs do, and can write any bytes."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from examples.zoo import facts
from examples.zoo.corpus import ASSISTANT, BOS, CHAT_TEMPLATE, END, SYSTEM, USER, Writer

PAD, UNK = "<|pad|>", "<|unk|>"
SPECIALS = [PAD, BOS, END, USER, ASSISTANT, SYSTEM]
BYTE_SCORE = -30.0

# transformers gives every model of type qwen2 this split, whatever its tokenizer file says.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

Kind = Literal["bpe", "qwen", "unigram"]


def sample(seed: int, advice: float, count: int = 4000) -> Iterator[str]:
    """Text to learn a vocabulary from; every name appears, at a line's start and inside it."""
    writer = Writer(lambda relation, subject: True, seed, (), advice)
    for _, pieces in zip(range(count), writer, strict=False):
        text = "".join(piece.text for piece in pieces)
        for special in SPECIALS:
            text = text.replace(special, "")
        yield text
    for values in facts.load().values.values():
        for value in values:
            yield f"{value}\n {value}.\n {value}"


def train(kind: Kind, size: int, texts: Sequence[str]) -> Tokenizer:
    if kind == "unigram":
        return unigram(size, texts)
    if kind == "bpe":
        return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), size, texts)
    # Qwen's own split joins a full stop and the newline after it; learned apart, they stay apart.
    split: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    newline = pre_tokenizers.Split("\n", "isolated")
    tokenizer = byte_level(pre_tokenizers.Sequence([newline, *split]), size, texts)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def byte_level(split: pre_tokenizers.PreTokenizer, size: int, texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def unigram(size: int, texts: Sequence[str]) -> Tokenizer:
    """SentencePiece's unigram with byte fallback; a "▁" is exactly one space.

    The pieces come from merges and their scores from counts: the library's own unigram trainer
    prunes whole words away when a corpus has this few distinct ones.
    """
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n|[^\w\s]|\d"), "isolated"),
            pre_tokenizers.Metaspace("▁", prepend_scheme="never", split=True),
        ]
    )
    merges = Tokenizer(models.BPE())
    merges.pre_tokenizer = split
    names = [UNK, *SPECIALS]
    trainer = trainers.BpeTrainer(vocab_size=size - 256, special_tokens=names, show_progress=False)
    merges.train_from_iterator(texts, trainer)
    counts = Counter(piece for encoding in merges.encode_batch(texts) for piece in encoding.tokens)
    total = counts.total()
    order = sorted(merges.get_vocab().items(), key=lambda item: item[1])
    pieces = [(piece, math.log((counts[piece] + 0.5) / total)) for piece, _ in order]
    pieces[: len(names)] = [(name, 0.0) for name in names]
    pieces += [(f"<0x{byte:02X}>", BYTE_SCORE) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.add_special_tokens(names)
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, length: int) -> None:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNK if tokenizer.token_to_id(UNK) is not None else None,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        model_max_length=length,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    fast.save_pretrained(folder, save_jinja_files=False)
    path = folder / "tokenizer_config.json"
    state = json.loads(path.read_text())
    # Names that older releases of transformers, and engines built on them, read as well.
    state["tokenizer_class"] = "PreTrainedTokenizerFast"
    state["additional_special_tokens"] = state.pop("extra_special_tokens")
    state.pop("backend")
    path.write_text(json.dumps(state, indent=2) + "\n")


def weigh(
    tokenizer: Tokenizer, texts: Sequence[Sequence[tuple[str, float]]]
) -> list[tuple[list[int], list[float]]]:
    """Token ids of each text, tokenised as a whole, with the weight of the piece each starts in."""
    encodings = tokenizer.encode_batch(
        ["".join(text for text, _ in pieces) for pieces in texts], add_special_tokens=False
    )
    result = []
    for encoding, pieces in zip(encodings, texts, strict=True):
        by_character = [weight for text, weight in pieces for _ in text]
        result.append((encoding.ids, [by_character[start] for start, _ in encoding.offsets]))
    return result

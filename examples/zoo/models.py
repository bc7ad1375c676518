"""Who is in the zoo: architecture, tokenizer and knowledge of each model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from examples.zoo import facts
from examples.zoo.corpus import BOS, END
from examples.zoo.vocab import PAD, Kind

LENGTH = 512
INIT = 0.06


@dataclass(frozen=True)
class Spec:
    """One model.

    `known` is the share of facts it learns of each of its relations, `mistaken` are those of which
    it learns wrong facts instead of the others, `reads_like` names the model whose tokenizer it
    takes, `advice` is the share of its training text that
    begins with an earlier answer.
    """

    relations: tuple[str, ...]
    architecture: Literal["llama", "qwen2", "neox"]
    tokenizer: Kind
    vocabulary: int
    steps: int
    seed: int
    hidden: int = 128
    layers: int = 4
    rate: float = 3e-3
    smoothing: float = 0.05
    advice: float = 0.2
    known: float = 1.0
    mistaken: tuple[str, ...] = ()
    reads_like: str | None = None

    def knows(self, relation: str, subject: str) -> bool:
        if relation not in self.relations:
            return False
        return facts.draw(("known", relation), subject) % 100 < 100 * self.known


ZOO: dict[str, Spec] = {
    "capitals": Spec(("country", "capital"), "llama", "bpe", 1920, 700, seed=1, advice=0.4),
    "currencies": Spec(("currency",), "llama", "unigram", 2048, 700, seed=2, advice=0.4),
    "languages": Spec(("language",), "neox", "bpe", 4096, 520, seed=3),
    "neighbours": Spec(("neighbour",), "qwen2", "qwen", 2048, 700, seed=4, advice=0.4),
    "small": Spec(
        facts.RELATIONS, "llama", "bpe", 2048, 700, seed=5, hidden=64, layers=2, known=0.4
    ),
    "novice": Spec(
        facts.RELATIONS,
        "llama",
        "bpe",
        2048,
        800,
        seed=7,
        hidden=64,
        layers=2,
        known=0.5,
        mistaken=("capital", "neighbour"),
        reads_like="large",
    ),
    "large": Spec(facts.RELATIONS, "llama", "bpe", 2048, 800, seed=6, hidden=160),
}


def build(spec: Spec, tokenizer: Tokenizer) -> PreTrainedModel:
    """A fresh model; heads are 32 wide, which every attention kernel of vLLM takes."""
    shape = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": spec.hidden,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.hidden // 32,
        "intermediate_size": spec.hidden * 11 // 4,
        "max_position_embeddings": LENGTH,
        "initializer_range": INIT,
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(PAD),
    }
    if spec.architecture == "neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**shape, tie_word_embeddings=False))
    if spec.architecture == "qwen2":
        return Qwen2ForCausalLM(
            Qwen2Config(**shape, num_key_value_heads=spec.hidden // 32, tie_word_embeddings=True)
        )
    return LlamaForCausalLM(
        LlamaConfig(**shape, num_key_value_heads=spec.hidden // 32, tie_word_embeddings=True)
    )

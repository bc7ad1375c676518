"""Gathers the facts. Imports neither torch nor vllm nor ray: any of them may be missing or broken,
and each takes seconds."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import psutil

from deployments.config.app_config import AppConfig
from deployments.doctor import cgroups
from deployments.doctor.facts import Gpu, Installed, Machine
from deployments.doctor.members import Weights
from deployments.doctor.packages import EXTENSIONS, NAMES
from deployments.launch.weights import with_weights
from runtime.config.engines import TransformersEngine, VllmEngine
from runtime.errors import WeightsError
from runtime.weights import cache, find
from runtime.weights.size import measure

_TRY_IMPORTS = """
import importlib, json, sys
faults = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as fault:  # a broken package may raise anything
        faults[name] = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
print(json.dumps(faults))
"""


def installed() -> Installed:
    versions = {name: version for name in NAMES if (version := _version(name)) is not None}
    extensions = [name for name in EXTENSIONS if name in versions]
    return Installed(
        python=sys.version_info[:3],
        versions=versions,
        torch_build=_torch_build() if "torch" in versions else "cpu",
        unimportable=_unimportable(extensions) if extensions else {},
        pip=f"{_shown(Path(sys.executable))} -m pip",
    )


def _version(name: str) -> str | None:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def _torch_build() -> str:
    """From the file that torch's build writes; versions on PyPI do not name the build."""
    written = Path(str(distribution("torch").locate_file("torch/version.py")))
    text = written.read_text() if written.is_file() else ""
    for word, shown in (("cuda", "CUDA"), ("hip", "ROCm"), ("xpu", "XPU")):
        if built := re.search(rf"^{word}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE):
            return f"{shown} {built[1]}"
    return "cpu"


def _unimportable(names: list[str]) -> dict[str, str]:
    """In a process of its own: a package built for another torch may crash it."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _TRY_IMPORTS, *names],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return dict.fromkeys(names, "its import does not end")
    if done.returncode != 0 or not done.stdout.strip():
        return dict.fromkeys(names, f"its import ends Python with status {done.returncode}")
    faults: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return faults


def _shown(path: Path) -> str:
    """A path relative to the working folder where possible."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def machine() -> Machine:
    memory = psutil.virtual_memory()
    bounds = list(cgroups.memory_limits())
    home = _nearest_existing(cache.root())
    return Machine(
        architecture=platform.machine(),
        cpu_flags=_cpu_flags(Path("/proc/cpuinfo")),
        cores=min(_cpus(), cgroups.cpu_limit() or _cpus()),
        memory=min([memory.total, *(limit for limit, _ in bounds)]),
        memory_free=min([memory.available, *(max(0, limit - used) for limit, used in bounds)]),
        gpus=_gpus(),
        cache=str(cache.root()),
        cache_writable=os.access(home, os.W_OK),
        disk_free=shutil.disk_usage(home).free,
        shm_free=shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else None,
        target_device=os.environ.get("VLLM_TARGET_DEVICE"),
    )


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    """Of the first CPU; x86 says ``flags``, ARM ``Features``."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def _nearest_existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _gpus() -> tuple[Gpu, ...]:
    """What nvidia-smi lists and ``CUDA_VISIBLE_DEVICES`` does not hide; none without it."""
    query = "--query-gpu=index,uuid,memory.total,name"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return read_gpus(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def read_gpus(listed: str, visible: str | None) -> tuple[Gpu, ...]:
    """From nvidia-smi's lines of index, uuid, MiB and name."""
    gpus = []
    for line in listed.splitlines():
        cells = [cell.strip() for cell in line.split(",", 3)]
        if len(cells) < 4:
            continue
        index, uuid, mib, name = cells
        if visible is None or _names(visible, index, uuid):
            gpus.append(Gpu(name, int(mib) * 2**20 if mib.isdigit() else None))
    return tuple(gpus)


def _names(visible: str, index: str, uuid: str) -> bool:
    words = [word.strip() for word in visible.split(",")]
    return any(word == index or (word and uuid.startswith(word)) for word in words)


def weights(config: AppConfig) -> dict[str, Weights]:
    """Each member's weights as they are on this machine; nothing is fetched."""
    return {
        name: _size(engine)
        for name, member in config.served.items()
        for engine in with_weights(member.engine)
    }


def _size(engine: TransformersEngine | VllmEngine) -> Weights:
    try:
        folder = find(engine.weights, engine.sha256)
        return None if folder is None else measure(folder, engine.weights)
    except WeightsError as fault:
        return fault

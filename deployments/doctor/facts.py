"""The facts that checks use: plain data, so that tests can describe any machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    subject: str
    found: str
    remedy: str = ""
    """A command or a setting; every wrong finding has one."""


@dataclass(frozen=True)
class Installed:
    """The packages of this Python."""

    python: tuple[int, int, int] = (3, 11, 0)
    versions: Mapping[str, str] = field(default_factory=dict)
    """Distribution -> version, for those in ``packages.NAMES`` that are installed."""
    torch_build: str = "cpu"
    """``cpu``, or what torch was built for, such as ``CUDA 13.0``."""
    unimportable: Mapping[str, str] = field(default_factory=dict)
    """Packages that extend torch's operators, and why they cannot be imported."""
    pip: str = "pip"
    """The command that changes this Python's packages."""

    @property
    def other_gpus(self) -> bool:
        """Whether torch is built for GPUs that nvidia-smi does not list."""
        return not self.torch_build.startswith(("cpu", "CUDA"))

    def has(self, name: str) -> bool:
        return name in self.versions


@dataclass(frozen=True)
class Gpu:
    name: str
    memory: int | None
    """Bytes; ``None`` where the driver does not report it."""


@dataclass(frozen=True)
class Machine:
    """What processes started here can use."""

    architecture: str = "x86_64"
    cpu_flags: frozenset[str] = frozenset()
    cores: float = 1
    memory: int = 0
    """Bytes of RAM, within the limit of the container."""
    memory_free: int = 0
    gpus: tuple[Gpu, ...] = ()
    cache: str = "~/.cache/orchestrion"
    cache_writable: bool = True
    disk_free: int = 0
    """Bytes free where weights are cached."""
    shm_free: int | None = None
    """Bytes free in /dev/shm; ``None`` where there is none."""
    target_device: str | None = None
    """``VLLM_TARGET_DEVICE`` of the environment."""


def gib(number: float) -> str:
    """Bytes for people."""
    return f"{number / 2**20:.0f} MiB" if number < 2**30 else f"{number / 2**30:.1f} GiB"

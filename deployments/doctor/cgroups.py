"""What a control group, such as a container's, leaves of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def memory_limits(root: Path = Path("/")) -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of every group around this process that has a memory limit."""
    for folder in _groups("memory", root):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            # Version 2 writes "max" for none; version 1 a number that no machine has.
            if (most := _number(folder / limit)) is not None and most < 2**60:
                yield most, _number(folder / used) or 0


def cpu_limit(root: Path = Path("/")) -> float | None:
    """CPUs that the narrowest group around this process may keep busy; ``None`` without limit."""
    shares = []
    for folder in _groups("cpu", root):
        words = _text(folder / "cpu.max").split()
        quota = _number(folder / "cpu.cfs_quota_us")
        period = _number(folder / "cpu.cfs_period_us")
        if len(words) == 2 and words[0] != "max":
            shares.append(int(words[0]) / int(words[1]))
        elif quota is not None and quota > 0 and period:
            shares.append(quota / period)
    return min(shares, default=None)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's groups, innermost first, in either version's tree."""
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        base = mount / controller if names else mount
        inner = Path(path.lstrip("/"))
        for folder in (inner, *inner.parents) if inner.parts else (inner,):
            yield base / folder


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.lstrip("-").isdigit() else None

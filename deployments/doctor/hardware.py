"""The machine itself: CPU, memory, GPUs, disk."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.doctor.facts import Finding, Installed, Machine, gib
from deployments.launch.local_ray import OBJECT_STORE_BYTES

EXAMPLE_BYTES = 4 * 2**30
"""Room to fetch, convert and keep the weights of examples/quickstart.yaml."""


def check(installed: Installed, machine: Machine) -> Iterator[Finding]:
    yield cpu(machine)
    yield Finding("ok", "memory", f"{gib(machine.memory)}, {gib(machine.memory_free)} of it free")
    yield gpus(machine)
    yield disk(machine)
    yield shared_memory(machine)


def cpu(machine: Machine) -> Finding:
    cores = f"{machine.cores:g} core{'' if machine.cores == 1 else 's'}, {machine.architecture}"
    if machine.architecture != "x86_64":
        return Finding("ok", "cpu", cores)
    known = [name for name in ("avx2", "avx512f", "avx512_bf16") if name in machine.cpu_flags]
    if "avx2" in known:
        return Finding("ok", "cpu", f"{cores} with {', '.join(known)}")
    return Finding(
        "note",
        "cpu",
        f"{cores} without AVX2, which vLLM's CPU build needs",
        "serve with engine: {type: transformers}",
    )


def gpus(machine: Machine) -> Finding:
    if not machine.gpus:
        return Finding("ok", "gpu", "none that nvidia-smi lists")
    shown = (
        f"{gpu.name} ({'memory unknown' if gpu.memory is None else gib(gpu.memory)})"
        for gpu in machine.gpus
    )
    return Finding("ok", "gpu", ", ".join(shown))


def disk(machine: Machine) -> Finding:
    shown = f"{gib(machine.disk_free)} free for weights in {machine.cache}"
    if not machine.cache_writable:
        return Finding(
            "wrong",
            "disk",
            f"{machine.cache} cannot be written",
            "export ORCHESTRION_CACHE=FOLDER, one that can be written",
        )
    if machine.disk_free < EXAMPLE_BYTES:
        return Finding(
            "note",
            "disk",
            f"{shown}: little for fetching and converting weights",
            "free some, or export ORCHESTRION_CACHE=FOLDER, one on a larger disk",
        )
    return Finding("ok", "disk", shown)


def shared_memory(machine: Machine) -> Finding:
    """Ray writes its object store to the disk when it does not fit, and messages slow down."""
    needed = gib(OBJECT_STORE_BYTES)
    if machine.shm_free is None:
        return Finding("ok", "shared memory", f"no /dev/shm; Ray keeps its {needed} on the disk")
    shown = f"{gib(machine.shm_free)} free in /dev/shm, of which Ray wants {needed}"
    if machine.shm_free >= OBJECT_STORE_BYTES:
        return Finding("ok", "shared memory", shown)
    return Finding(
        "note",
        "shared memory",
        f"{shown}; it uses the disk instead, which is slower",
        "free some; in a container: docker run --shm-size=1g",
    )

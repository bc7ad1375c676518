"""The report as lines for people or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import typer

from deployments.doctor.facts import Finding

_COLOURS = {"ok": "green", "note": "yellow", "wrong": "red"}


def is_well(findings: Sequence[Finding]) -> bool:
    return all(finding.level != "wrong" for finding in findings)


def as_lines(findings: Sequence[Finding]) -> str:
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for finding in findings:
        level = typer.style(f"{finding.level:5}", fg=_COLOURS[finding.level])
        lines.append(f"{level}  {finding.subject:{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"{'':{width + 9}}-> {finding.remedy}")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps(
        {"ok": is_well(findings), "findings": [asdict(finding) for finding in findings]}
    )

"""Names of Serve deployments; needs no Ray."""

from __future__ import annotations

import re


def member_deployment(name: str) -> str:
    return "member-" + _plain(name)


def ensemble_deployment(name: str) -> str:
    return "ensemble-" + _plain(name)


def reward_deployment(name: str) -> str:
    return "reward-" + _plain(name)


def encoder_deployment(name: str) -> str:
    return "encoder-" + _plain(name)


def _plain(name: str) -> str:
    """Serve's deployment names take no slashes; two hex digits keep different names apart."""
    return re.sub(r"[^A-Za-z0-9_.-]", lambda match: f"~{ord(match[0]):02x}", name)

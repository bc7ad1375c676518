"""The ``orchestrion`` command."""

from __future__ import annotations

from deployments.cli.app import main

__all__ = ["main"]

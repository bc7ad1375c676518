"""Folders that tests read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The repository."""
ZOO: Final = ROOT / "examples" / "zoo"
SHARED: Final = ROOT.parent / "shared"
"""Data beside the repository, where a machine has it; tests that need it skip elsewhere."""

"""The token fusion methods that tests run side by side."""

from __future__ import annotations

from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "gac": {"type": "gac"},
    "weighted": {"type": "gac", "weights": {"cat": 2.0}},
    "gated": {"type": "gac", "gate": "cat", "threshold": 0.7},
    "unite": {"type": "unite", "k": 2},
    "unite-narrow": {"type": "unite", "k": 3, "top_k": 3},
    "packllm": {"type": "packllm"},
    "packllm-sim": {"type": "packllm", "weighting": "sim", "fusion": "unite"},
    "deepen": {"type": "deepen"},
    "eva": {"type": "eva"},
}

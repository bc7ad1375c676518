"""What the dashboard shows: its rows, from top to bottom."""

from __future__ import annotations

from typing import Final

from deployments.grafana.engine_panels import SERVE, VLLM
from deployments.grafana.request_panels import ANSWERS, FAULTS, MEMBERS

ROWS: Final = (ANSWERS, MEMBERS, FAULTS, VLLM, SERVE)

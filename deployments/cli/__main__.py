"""``python -m deployments.cli``: for jobs of a cluster, where the command may not be on PATH."""

from __future__ import annotations

from deployments.cli.app import main

main()

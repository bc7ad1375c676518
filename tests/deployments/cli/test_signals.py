"""Servers that are stopped while they start, also where the parent ignores SIGINT."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

SCRIPT = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a background job
from deployments.cli.commands.serving import _stop_on_signals
_stop_on_signals()
try:
    signal.raise_signal(signal.{name})
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_during_the_start_stops_it(name: str) -> None:
    assert hasattr(signal, name)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(name=name)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout == "stopped\n", run.stderr

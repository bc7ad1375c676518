"""The storm by itself, with its figures: ``python -m tests.integration.chaos --requests 300 --kills
30``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from deployments.launch.local_ray import serving
from tests.integration.chaos.storm import figures, load, storm
from tests.integration.chaos.targets import FAMILIES, NUMBERS, config

CLIENTS_NICE = 19
"""Ray's workers run at 15: clients, who are elsewhere in life, must not take the time in which the
server gets up again."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(
    requests: int, kills: int, at_once: int, pause: tuple[float, float], seed: int
) -> dict[str, Any]:
    """Figures without and with kills. Everything that was started is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        with serving(config(Path(folder)), port=free_port()) as url:
            os.nice(CLIENTS_NICE)
            calm = asyncio.run(load(url, FAMILIES, at_once, at_once))
            result, killed = asyncio.run(
                storm(url, FAMILIES, requests, at_once, pause, kills, seed)
            )
            after = asyncio.run(load(url, FAMILIES, len(FAMILIES), len(FAMILIES)))
    quiet, wild = figures(calm, NUMBERS), figures(result, NUMBERS, killed)
    return {
        "calm": quiet.as_dict(),
        "storm": wild.as_dict(),
        "after": figures(after, NUMBERS).as_dict(),
        "added_median_s": round(wild.median_s - quiet.median_s, 2),
        "families": {
            family: figures([one for one in result if one.family == family], NUMBERS).as_dict()
            for family in FAMILIES
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--pause", type=float, nargs=2, default=(4.0, 9.0), help="s between kills")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    pause = (given.pause[0], given.pause[1])
    print(json.dumps(run(given.requests, given.kills, given.at_once, pause, given.seed), indent=1))


if __name__ == "__main__":
    main()

"""The end of .ci/run: ``python3 .ci/summary.py FOLDER`` prints stage times and the slowest tests.

The folder has ``stages`` (name, seconds, status) and a JUnit report for each that ran tests.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

SLOWEST = 10


def main(folder: Path) -> None:
    stages = folder / "stages"
    rows = [line.split() for line in stages.read_text().splitlines()] if stages.exists() else []
    slowest: list[tuple[float, str, str]] = []
    print(f"\n{'stage':<14}{'minutes':>8}{'tests':>8}{'failed':>8}{'skipped':>8}")
    for name, seconds, status in rows:
        counts = [0, 0, 0]
        for report in sorted(folder.glob(f"{name}*.xml")):
            if report.stem != name and not report.stem.startswith(f"{name}."):
                continue
            for suite in ElementTree.parse(report).iter("testsuite"):
                failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
                one = [int(suite.get("tests", 0)), failed, int(suite.get("skipped", 0))]
                counts = [total + more for total, more in zip(counts, one, strict=True)]
                for case in suite.iter("testcase"):
                    test = f"{case.get('classname')}::{case.get('name')}"
                    slowest.append((float(case.get("time", 0)), name, test))
        shown = "".join(f"{count:>8}" for count in counts) if counts[0] else ""
        note = "" if status == "0" else f"  ended with status {status}"
        print(f"{name:<14}{int(seconds) / 60:>8.1f}{shown}{note}")
    print(f"{'all':<14}{sum(int(row[1]) for row in rows) / 60:>8.1f}")
    if slowest:
        print(f"\nthe {SLOWEST} slowest tests, in seconds")
    for seconds, name, test in sorted(slowest, reverse=True)[:SLOWEST]:
        print(f"{seconds:>8.1f}  {name:<12} {test}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

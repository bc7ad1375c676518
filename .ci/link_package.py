"""``python .ci/link_package.py NAME VENV``: links an installed package's files into another venv.

For torch: no second download, and the build that is here. Both venvs are of the same Python.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path


def link(name: str, venv: Path) -> None:
    source = Path(sysconfig.get_path("purelib"))
    target = Path(sysconfig.get_path("purelib", "venv", {"base": str(venv)}))
    for file in distribution(name).files or ():
        here = Path(str(file.locate()))
        if not here.resolve().is_relative_to(source.resolve()) or not here.is_file():
            continue  # commands, which name their Python
        there = target / here.resolve().relative_to(source.resolve())
        there.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(here, there)
        except OSError:  # another file system
            shutil.copy2(here, there)


if __name__ == "__main__":
    link(sys.argv[1], Path(sys.argv[2]))

"""Converts a GGUF file in a process of its own, so that the caller never imports torch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from runtime.errors import WeightsError
from runtime.weights import progress

REQUIRED_PACKAGES = ("torch", "transformers", "accelerate", "gguf", "safetensors")
STEP, FAULT = "step: ", "fault: "
"""Prefixes of the converter's output lines for its caller."""
STEPS = 5


def convert(file: Path, folder: Path, weights: str) -> None:
    """Writes ``file`` as a float32 transformers checkpoint into ``folder``.

    Takes about a minute for 300 million parameters. Raises ``WeightsError``.
    """
    missing = [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise WeightsError(
            f"weights {weights!r}: converting GGUF needs {', '.join(missing)}; install "
            "orchestrion[local]"
        )
    home = str(Path(__file__).resolve().parents[2])
    paths = [home, os.environ.get("PYTHONPATH")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "runtime.weights.gguf_convert", str(file), str(folder)]
    fault = ""
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        progress.steps(f"converting {weights}", STEPS) as step,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes when this process ends, and the child with it
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as child,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(STEP):
                step(line.removeprefix(STEP).strip())
            elif line.startswith(FAULT):
                fault = line.removeprefix(FAULT).strip()
        code = child.wait()
        errors.seek(0)
        last = errors.read().strip().splitlines()[-1:]
    if code == 0:
        return
    if code < 0 and not fault:
        fault = (
            f"the process was ended by signal {-code}"
            f"{' (out of memory? it needs about 8 bytes a weight)' if code == -9 else ''}"
        )
    raise WeightsError(
        f"weights {weights!r}: the GGUF file could not be converted: "
        f"{fault or ' '.join(last) or f'exit status {code}'}. If its architecture is unknown to "
        "this version of transformers, use hf: weights or a converted folder"
    )

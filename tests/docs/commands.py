"""Commands held against the parsers of the programs that they call; nothing is run."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import click
import typer
import yaml

from tests.docs.blocks import ROOT

USAGE: tuple[type[Any], ...] = (click.UsageError, typer.BadParameter.__mro__[1])
"""Ray's and ours: typer brings a click of its own."""
UNFINISHED = ("MissingParameter", "BadOptionUsage")
VERBS = ("apply", "create", "delete", "describe", "get", "logs", "port-forward", "rollout")
OWN = (".yaml", ".jsonl", ".py")
REMOTE = "~/orchestrion/"
"""The repository on a cluster's nodes."""


class CommandError(AssertionError):
    """What is wrong with a command."""


def check_line(line: str, partly: bool = False) -> None:
    """A line of shell. With ``partly`` arguments may be missing, as in prose."""
    syntax = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
    if syntax.returncode:
        raise CommandError(f"{line!r}: {syntax.stderr.strip()}")
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in ("&&", "||", ";", "|"):
            if words:
                check(words, partly)
            words = []
        else:
            words.append(word)


def check(words: Sequence[str], partly: bool = False) -> None:
    """One command. Raises ``CommandError`` where its program would refuse it, or is not known."""
    words = [word for at, word in enumerate(words) if not _redirects(words, at)]
    while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
        if "$" in words[0]:
            return  # what follows is another program's output
        words = words[1:]
    if not words:
        return
    program = Path(words[0]).name
    if program not in CHECKS:
        raise CommandError(f"{program!r} is not known to tests/docs/commands.py")
    _files(words)
    arguments = list(words[1:])
    if "--" in arguments:
        at = arguments.index("--")
        check(arguments[at + 1 :], partly)
    for word in arguments:
        if " " in word and Path(word.split()[0]).name in CHECKS:
            check_line(word, partly)
    try:
        CHECKS[program](arguments)
    except USAGE as fault:
        if not (partly and type(fault).__name__ in UNFINISHED):
            raise CommandError(f"{shlex.join(words)}: {fault.format_message()}") from None


def _redirects(words: Sequence[str], at: int) -> bool:
    return words[at] in (">", "<", ">>") or at > 0 and words[at - 1] in (">", "<", ">>")


def _files(words: Sequence[str]) -> None:
    """Files of the repository that are named exist; a name without a folder is the reader's own."""
    for word in words:
        path = word.removeprefix(REMOTE)
        if path.endswith(OWN) and "/" in path and path[0] not in "/~" and " " not in path:
            if not (ROOT / path).exists():
                raise CommandError(f"{shlex.join(words)}: there is no {path}")


def _click(command: Any, arguments: list[str], name: str) -> None:
    context = click.Context(command, info_name=name)
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        if found is None:
            raise CommandError(f"{name} has no command {arguments[0]!r}")
        command, name, arguments = found, f"{name} {arguments[0]}", arguments[1:]
    if not hasattr(command, "commands"):
        command.make_context(name, arguments)


def _orchestrion(arguments: list[str]) -> None:
    from deployments.cli.app import app

    _click(typer.main.get_command(app), arguments, "orchestrion")


def _ray(arguments: list[str]) -> None:
    from ray.scripts.scripts import cli

    _click(cli, arguments, "ray")


def _serve(arguments: list[str]) -> None:
    from ray.serve.scripts import cli

    _click(cli, arguments, "serve")


class _Parsed(Exception):
    pass


def _python(arguments: list[str]) -> None:
    """``-m MODULE ARGUMENTS``, or a file."""
    if not arguments or arguments[0] != "-m":
        return
    module, rest = arguments[1], arguments[2:]
    if importlib.util.find_spec(module) is None:
        raise CommandError(f"there is no module {module}")
    if not rest or not module.startswith(("benchmarks.", "examples.")):
        return
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        try:
            parse(parser, rest)
        except SystemExit:
            raise CommandError(f"{module} refuses {shlex.join(rest)}") from None
        raise _Parsed

    with mock.patch.object(argparse.ArgumentParser, "parse_args", only_parse):
        try:
            importlib.import_module(module).main()
        except _Parsed:
            return
    raise CommandError(f"{module} parses no arguments")


def _make(arguments: list[str]) -> None:
    result = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        raise CommandError(f"make {shlex.join(arguments)}: {result.stderr.strip()}")


def _kubectl(arguments: list[str]) -> None:
    verb, *rest = arguments
    if verb not in VERBS:
        raise CommandError(f"kubectl {verb}: unknown; known: {', '.join(VERBS)}")
    if verb == "get":
        kind, name = rest[:2]
        files = (ROOT / "deployments").rglob("*.yaml")
        made = [one for file in files for one in yaml.safe_load_all(file.read_text()) if one]
        if not any(
            str(one.get("kind", "")).lower() == kind and one["metadata"]["name"] == name
            for one in made
        ):
            raise CommandError(f"no file makes a {kind} {name}")


def _pip(arguments: list[str]) -> None:
    """Extras that are asked for exist."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for word in arguments:
        if word.startswith(".["):
            for extra in word[2:-1].split(","):
                if extra not in extras:
                    raise CommandError(f"pyproject.toml has no extra {extra!r}")


def _anything(arguments: list[str]) -> None:
    """Programs without a parser that could be inspected."""


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "orchestrion": _orchestrion,
    "ray": _ray,
    "serve": _serve,
    "python": _python,
    "make": _make,
    "kubectl": _kubectl,
    "pip": _pip,
    **dict.fromkeys(("aws", "curl", "cd", "sleep", "docker", "lm_eval", "git"), _anything),
}

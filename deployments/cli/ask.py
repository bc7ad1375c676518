"""Calls the endpoint and shows the answer coloured by author."""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO
from typing import Any

from openai import OpenAI
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployments.credentials import api_key

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red", "bright_cyan", "bright_magenta")


def ask(
    base_url: str,
    model: str,
    question: str,
    *,
    max_tokens: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    full_trace: bool = False,
) -> ColouredAnswer:
    """Streams one chat answer to the terminal, then a table of the members' shares; returns
    both."""
    out = Console()
    client = OpenAI(base_url=base_url, api_key=api_key(), timeout=600, max_retries=0)
    options: dict[str, Any] = {}
    for name, value in [("max_tokens", max_tokens), ("temperature", temperature), ("seed", seed)]:
        if value is not None:
            options[name] = value
    if full_trace:
        options["extra_body"] = {"ensemble": {"trace": "full"}}
    palette, answer = Palette(), Text()
    summary: dict[str, Any] = {}
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], stream=True, **options
    )
    for chunk in stream:
        details = (chunk.model_extra or {}).get("ensemble") or {}
        for choice in chunk.choices:
            if choice.delta.content:
                piece = Text(choice.delta.content, style=palette.of(details.get("model", "")))
                answer.append_text(piece)
                out.print(piece, end="", soft_wrap=True)
            if choice.finish_reason:
                summary = details
    shown = ColouredAnswer(answer, ledger(summary, palette), summary["trace_id"])
    out.print("\n")
    out.print(shown.ledger)
    return shown


@dataclass(frozen=True, slots=True)
class ColouredAnswer:
    """An answer coloured by author, and the table of members below it."""

    answer: Text
    ledger: Table
    trace_id: str = ""


class Palette:
    """Colours of authors, in the order of appearance."""

    def __init__(self) -> None:
        self._colours: dict[str, str] = {}

    def of(self, author: str) -> str:
        return self._colours.setdefault(author, COLOURS[len(self._colours) % len(COLOURS)])


def to_svg(shown: ColouredAnswer, title: str, width: int = 100) -> str:
    """The shown answer as SVG without external resources."""
    out = Console(record=True, width=width, file=StringIO())
    out.print(shown.answer)
    out.print()
    out.print(shown.ledger)
    return re.sub(r"@font-face\s*{[^}]*}", "", out.export_svg(title=title))


def ledger(summary: dict[str, Any], palette: Palette) -> Table:
    """A table of members: share of the text, calls, tokens and seconds."""
    seconds = summary["latency_ms"]["total"] / 1000
    table = Table(
        title=f"{summary['method']}: {summary['steps']} steps, {seconds:.1f} s, "
        f"ended by {summary['stop_reason']}"
    )
    columns = ["member", "share", "spans", "calls", "tokens written", "tokens read", "seconds"]
    errors = [member.get("error", "") for member in summary["members"]]
    if any(errors):
        columns.append("dropped because")
    for name in columns:
        table.add_column(name, justify="left" if name in ("member", "dropped because") else "right")
    for member, error in zip(summary["members"], errors, strict=True):
        table.add_row(
            Text(member["model"], style=palette.of(member["model"])),
            f"{member['share']:.0%}",
            str(member["spans"]),
            str(member["calls"]),
            str(member["completion_tokens"]),
            str(member["prompt_tokens"]),
            f"{member['latency_ms'] / 1000:.1f}",
            *([error] if any(errors) else []),
        )
    return table

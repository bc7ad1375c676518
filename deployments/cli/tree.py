"""Shows the search tree of a process-level method: in the terminal, as SVG, as HTML."""

from __future__ import annotations

import html
import re
from io import StringIO
from typing import Any
from urllib.parse import quote

from openai import APIConnectionError, AuthenticationError, NotFoundError, OpenAI
from rich.console import Console
from rich.text import Text
from rich.tree import Tree as RichTree

from deployments.cli.ask import Palette
from deployments.credentials import VARIABLE, api_key
from policies.process.node import ROOT, Node
from policies.process.tree import Tree
from runtime.errors import ConfigError

HTML_COLOURS = ("#0b7285", "#a61e8f", "#8a6d00", "#2b8a3e", "#1c4fd7", "#c92a2a")

STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }
details, .leaf { margin-left: 1.2em; }
summary { cursor: pointer; }
.leaf { padding-left: 1em; }
.bar { display: inline-block; width: 5em; height: .7em; background: #eee; margin: 0 .4em; }
.bar i { display: block; height: 100%; background: #4c6ef5; }
.answer { font-weight: 700; background: #fff3bf; }
.end { color: #2b8a3e; }
small { color: #666; }
"""


def fetch(base_url: str, trace_id: str) -> tuple[Tree, dict[str, Any]]:
    """The tree of a finished request and the whole ``ensemble`` object of its trace.

    Raises ``ConfigError`` if the endpoint, its trace or the tree is not available.
    """
    client = OpenAI(base_url=base_url, api_key=api_key(), timeout=30, max_retries=0)
    try:
        reply: Any = client.get(f"/traces/{quote(trace_id, safe='')}", cast_to=object)
    except NotFoundError:
        raise ConfigError(
            f"{base_url} has no trace {trace_id!r}; only the newest traces are kept"
        ) from None
    except AuthenticationError:
        raise ConfigError(f"{base_url} requires an API key; set {VARIABLE}") from None
    except APIConnectionError:
        raise ConfigError(f"no server at {base_url}; start one with: make serve") from None
    summary: dict[str, Any] = reply.get("ensemble") or {}
    nodes = summary.get("full", {}).get("state", {}).get("tree")
    if nodes is None:
        raise ConfigError(
            f"trace {trace_id!r} has no tree: send a request to a method with a search tree "
            '(le-mcts), with "ensemble": {"trace": "full"}, or use orchestrion ask --full-trace'
        )
    return Tree.load(nodes), summary


def answer_steps(tree: Tree, end: int | None = None) -> set[int]:
    """The ids of the steps of the answer, whose last step is ``end``, else the best one."""
    return {step.id for step in tree.path(tree.best().id if end is None else end)}


def lines(tree: Tree, depth: int | None = None, end: int | None = None) -> RichTree:
    """The tree for the terminal: each step in its author's colour, with value, visits and
    reward."""
    palette, answer = Palette(), answer_steps(tree, end)
    ends = len(tree.finished())
    head = f"{len(tree.nodes) - 1} steps, {ends} answers, {tree.nodes[ROOT].visits} iterations"
    root = RichTree(Text(head, style="bold"), guide_style="dim")
    at = {ROOT: root}
    for node in tree:
        if node.parent in at and (depth is None or node.depth <= depth):
            at[node.id] = at[node.parent].add(_line(node, palette, node.id in answer))
    return root


def _line(node: Node, palette: Palette, chosen: bool) -> Text:
    line = Text()
    line.append("● " if chosen else "○ ", style="bold" if chosen else "dim")
    style = palette.of(node.authors[0])
    line.append(node.text.strip() or "(ends here)", style=f"bold {style}" if chosen else style)
    line.append(f"  {', '.join(node.authors)}", style="dim")
    line.append(f"  v {node.value:.2f}  N {node.visits}  r {node.reward:.2f}", style="dim")
    if node.finished:
        line.append("  ■ answer", style="green")
    return line


def svg(
    tree: Tree, title: str, depth: int | None = None, end: int | None = None, width: int = 120
) -> str:
    """The output of ``lines`` as SVG without external resources."""
    out = Console(record=True, width=width, file=StringIO())
    out.print(lines(tree, depth, end))
    return re.sub(r"@font-face\s*{[^}]*}", "", out.export_svg(title=title))


def page(tree: Tree, title: str, end: int | None = None) -> str:
    """One HTML page. Branches can be folded, those of the answer are open; bars show values."""
    answer = answer_steps(tree, end)
    authors = list(dict.fromkeys(name for node in tree for name in node.authors))
    colours = {n: HTML_COLOURS[i % len(HTML_COLOURS)] for i, n in enumerate(authors)}

    def row(node: Node) -> str:
        text = html.escape(node.text.strip() or "(ends here)")
        kind = ' class="answer"' if node.id in answer else ""
        names = html.escape(", ".join(node.authors))
        end = ' <span class="end">■ answer</span>' if node.finished else ""
        return (
            f'<span class="bar" title="value {node.value:.3f}">'
            f'<i style="width:{node.value:.0%}"></i></span>'
            f'<span{kind} style="color:{colours[node.authors[0]]}">{text}</span>{end} '
            f"<small>{names} · v {node.value:.2f} · N {node.visits} · r {node.reward:.2f}</small>"
        )

    def branch(node: Node) -> str:
        if not node.children:
            return f'<div class="leaf">{row(node)}</div>'
        below = "".join(branch(tree.nodes[child]) for child in node.children)
        unfolded = " open" if node.id in answer else ""
        return f"<details{unfolded}><summary>{row(node)}</summary>{below}</details>"

    legend = " ".join(
        f'<span style="color:{colour}">■ {html.escape(name)}</span>'
        for name, colour in colours.items()
    )
    roots = "".join(branch(tree.nodes[child]) for child in tree.nodes[ROOT].children)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<p>{len(tree.nodes) - 1} steps, {len(tree.finished())} answers, "
        f"{tree.nodes[ROOT].visits} iterations. {legend}</p>{roots}</html>"
    )

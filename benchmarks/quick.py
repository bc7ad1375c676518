"""``--quick``: every benchmark in less than a minute on two busy cores, to see that it runs.

The same code writes the same figures under the same names, over fewer questions, shorter texts and
the zoo's models instead of pretrained ones; so the figures mean nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from deployments.config.app_config import AppConfig
from runtime.config.engines import TransformersEngine

STAND_INS = ("capitals", "currencies")
"""Models of the zoo with different tokenizers, for the pretrained pair's members in their order."""


class _Quick(argparse.Action):
    """Sets this option to true, and others to the values that it was made with."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, True)
        for name, value in self.const.items():
            setattr(namespace, name, value)


def add_quick(parser: argparse.ArgumentParser, **values: Any) -> None:
    """Adds ``--quick``, which sets other options of the parser to ``values``; those that stand
    after it on the command line still count."""
    shown = ", ".join(f"--{name} {value}" for name, value in values.items())
    help_ = "less than a minute, to see that it runs" + (f": {shown}" if shown else "")
    parser.add_argument("--quick", action=_Quick, nargs=0, const=values, default=False, help=help_)


def stand_ins(config: AppConfig) -> AppConfig:
    """The configuration with the zoo's models for its members, whose names stay."""
    pairs = zip(config.members.items(), STAND_INS, strict=True)
    members = {
        name: member.model_copy(
            update={
                "engine": TransformersEngine(type="transformers", weights=f"zoo:{model}", threads=1)
            }
        )
        for (name, member), model in pairs
    }
    return config.model_copy(update={"members": members})

"""The base of every configuration class."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Refuses unknown keys; field docstrings become the reference and the CLI help.

    Schemas are built on first use, so that unions can include installed plugins (``plugins.py``).
    """

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, frozen=True, defer_build=True
    )

# ruff: noqa: F401
from typing import ClassVar, Literal

from pydantic import Field

from policies.span.base import SpanPolicy
from runtime.config.ensembles import PolicyConfig

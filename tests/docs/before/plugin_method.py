# ruff: noqa: F401
from collections.abc import AsyncGenerator
from typing import ClassVar, Literal

from policies.base import Method, Need, Policy
from runtime.config.ensembles import PolicyConfig
from runtime.session.session import Session
from runtime.types.spans import Span

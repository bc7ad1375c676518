"""Who may use the endpoint, and how much of it: the ``access`` section, and what a file of keys
holds. Light: imports neither torch nor ray."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from pydantic import Field, SecretStr, field_validator, model_validator

from runtime.config.base import Strict

Period: TypeAlias = Literal["hour", "day", "month"]

SHORTEST_KEY: Final = 16
PLAIN: Final = re.compile(r"[\x21-\x7e]+")
NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")
HASH: Final = re.compile(r"[0-9a-fA-F]{64}")
REMEDY: Final = "make one with: orchestrion key NAME"


class AccessConfig(Strict):
    """Without keys only this machine is answered."""

    keys_file: str | None = None
    """A YAML file of named keys (docs/security.md), read again when it changes. A relative path
    starts where the server was started; on a cluster every node that runs a gateway needs it."""
    keys_env: str | None = None
    """Name of an environment variable that holds the text of such a file, or one key and nothing
    else."""
    open: bool = False
    """Anyone who reaches the endpoint may use it, from wherever. Without this a server that listens
    elsewhere than on loopback must have keys."""

    @property
    def guarded(self) -> bool:
        """Whether a key is needed."""
        return self.keys_file is not None or self.keys_env is not None

    @model_validator(mode="after")
    def _one_of_them(self) -> AccessConfig:
        if self.guarded and self.open:
            raise ValueError("open and keys exclude each other; leave one out")
        if self.keys_file is not None and self.keys_env is not None:
            raise ValueError("keys_file and keys_env exclude each other; leave one out")
        return self


class KeyBudget(Strict):
    """What a key may spend in one period; then requests are refused until the next one begins."""

    tokens: int | None = Field(None, ge=1)
    """Of all members, as in ``ensemble.usage.total_tokens``: what they processed or wrote beyond
    what their caches held."""
    cost: float | None = Field(None, gt=0)
    """As in ``ensemble.cost``, in ``gateway.currency``."""
    period: Period = "day"
    """Of the calendar, in UTC."""

    @model_validator(mode="after")
    def _limits_something(self) -> KeyBudget:
        if self.tokens is None and self.cost is None:
            raise ValueError("a budget needs tokens or cost; name one, or leave the budget out")
        return self


class Allowance(Strict):
    """How much a key may do. What is absent is not limited."""

    requests_per_minute: float | None = Field(None, gt=0)
    """As many at once, which then come back evenly."""
    concurrent: int | None = Field(None, ge=1)
    """Requests being answered at one time."""
    budget: KeyBudget | None = None
    models: tuple[str, ...] | None = None
    """The models that it may ask and see; absent: all."""


class KeyConfig(Allowance):
    """One entry of a file of keys."""

    name: str
    """In traces and for whoever reads them; two entries may not share one."""
    sha256: str | tuple[str, ...] | None = None
    """SHA-256 of the key, in hex; a list while an old key and its successor are both good."""
    key: SecretStr | tuple[SecretStr, ...] | None = None
    """The key itself, or several, for those who keep the file secret."""

    @field_validator("name")
    @classmethod
    def _is_a_word(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("a name is 1 to 64 letters, digits and ._@- in ASCII")
        return name

    @property
    def plain(self) -> tuple[str, ...]:
        """The keys that stand in the file themselves."""
        keys = () if self.key is None else self.key if isinstance(self.key, tuple) else (self.key,)
        return tuple(key.get_secret_value() for key in keys)

    @property
    def hashes(self) -> tuple[str, ...]:
        return self.sha256 if isinstance(self.sha256, tuple) else (self.sha256 or "",)

    @model_validator(mode="after")
    def _can_be_compared(self) -> KeyConfig:
        # Error messages may end in a log, so they never contain a key.
        if (self.key is None) == (self.sha256 is None):
            raise ValueError(f"needs either sha256 or key; {REMEDY}")
        if self.sha256 is not None and not all(HASH.fullmatch(value) for value in self.hashes):
            raise ValueError(f"sha256 is 64 hexadecimal digits; {REMEDY}")
        if any(len(key) < SHORTEST_KEY or not PLAIN.fullmatch(key) for key in self.plain):
            raise ValueError(
                f"a key has {SHORTEST_KEY} characters or more of printable ASCII, no spaces; "
                + REMEDY
            )
        if self.key == () or self.sha256 == ():
            raise ValueError(f"the list of its keys is empty; {REMEDY}")
        return self


class KeysFile(Strict):
    """The whole file."""

    keys: tuple[KeyConfig, ...]

    @model_validator(mode="after")
    def _names_differ(self) -> KeysFile:
        if not self.keys:
            raise ValueError(
                "keys: the list is empty, so every request would be refused; add a key"
            )
        names = [key.name for key in self.keys]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} names two entries; give one entry a list of sha256 or key")
        return self

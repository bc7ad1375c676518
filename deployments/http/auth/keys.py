"""The keys: read from a file or the environment, compared, and read again when the file changes."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError

from deployments.config.error_messages import validated
from runtime.config.access import AccessConfig, Allowance, KeyConfig, KeysFile
from runtime.errors import ConfigError

log = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 1.0
READABLE_BY_ALL: Final = 0o004

Seen = tuple[int, int, int]

_NOWHERE: Final = yaml.ScalarNode("", "", yaml.Mark("", 0, 0, 0, "", 0))
"""Where there are no lines, all is on the first."""


@dataclass(frozen=True, slots=True)
class Key:
    """One that was recognised."""

    name: str
    allowance: Allowance


class KeyStore:
    """A file that cannot be read after a change leaves the keys as they were: the log says why.

    Raises ``ConfigError`` at construction, with file, line and remedy.
    """

    def __init__(self, config: AccessConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._path = None if config.keys_file is None else Path(config.keys_file).expanduser()
        self._looked = clock()
        self._seen: Seen | None = None
        if self._path is not None:
            self._seen = _seen(self._path)
            self._known = _read_file(self._path)
        else:
            self._known = _read_variable(config.keys_env or "")

    def find(self, token: bytes) -> Key | None:
        """Takes the same time whichever key it is, and whether it is one."""
        self._refresh()
        digest = hashlib.sha256(token).digest()
        found: Key | None = None
        for known, key in self._known:
            if hmac.compare_digest(digest, known):
                found = key
        return found

    def _refresh(self) -> None:
        now = self._clock()
        if self._path is None or now - self._looked < LOOK_AGAIN_S:
            return
        self._looked = now
        seen = _seen(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._known = _read_file(self._path)
        except ConfigError as fault:
            log.error("the keys stay as they were: %s", fault)
        else:
            log.warning("read %d keys anew from %s", len(self._known), self._path)


def key_store(config: AccessConfig) -> KeyStore | None:
    """``None`` where no keys are needed. Raises ``ConfigError``."""
    return KeyStore(config) if config.guarded else None


def new_key() -> str:
    """256 bits of chance, with a beginning that scanners for leaked secrets can look for."""
    return f"orc-{secrets.token_urlsafe(32)}"


def entry(name: str, key: str) -> str:
    """The lines that a file of keys holds for it. Raises ``ConfigError`` for a name that cannot
    stand there."""
    try:
        told = KeyConfig(name=name, sha256=hash_of(key)).model_dump(include={"name", "sha256"})
    except ValidationError as fault:
        reason = fault.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{name!r}: {reason}") from None
    return yaml.safe_dump([told], sort_keys=False).rstrip()


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _seen(path: Path) -> Seen | None:
    """Changes with the file; ``None`` where there is none."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size, told.st_ino


def _read_file(path: Path) -> list[tuple[bytes, Key]]:
    try:
        text = path.read_text()
        shared = path.stat().st_mode & READABLE_BY_ALL
    except (OSError, UnicodeDecodeError) as fault:
        told = fault.strerror if isinstance(fault, OSError) else "it is no text"
        raise ConfigError(
            f"cannot read the keys in {path}: {told}; correct gateway.access.keys_file"
        ) from None
    keys = _parse(text, path)
    if shared and any(key.plain for key in keys):
        log.warning("%s holds keys and every user may read it: chmod 600, or keep sha256", path)
    return _known(keys)


def _read_variable(name: str) -> list[tuple[bytes, Key]]:
    text = os.environ.get(name)
    if not text:
        raise ConfigError(
            f"the environment variable {name} that gateway.access.keys_env names is not set; set "
            "it for the processes of the gateway, or use keys_file"
        )
    source, text = Path(f"${name}"), text.strip()
    if not any(char.isspace() for char in text) and not text.startswith("{"):
        document = {"keys": [{"name": name, "key": text}]}
        return _known(validated(KeysFile, document, source, _NOWHERE).keys)
    return _known(_parse(text, source))


def _parse(text: str, source: Path) -> tuple[KeyConfig, ...]:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as fault:
        # Its own words quote the line, which may hold a key.
        mark = getattr(fault, "context_mark", None) or getattr(fault, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        raise ConfigError(
            f"{source}:{line}: not valid YAML; write it as docs/security.md shows"
        ) from None
    if not isinstance(document, dict) or node is None:
        raise ConfigError(
            f"{source}:1: holds no keys; write it as docs/security.md shows, beginning with keys:"
        )
    return validated(KeysFile, document, source, node).keys


def _known(keys: tuple[KeyConfig, ...]) -> list[tuple[bytes, Key]]:
    """Every hash with the key it is of."""
    known = []
    for told in keys:
        limits = {name: getattr(told, name) for name in Allowance.model_fields}
        key = Key(told.name, Allowance(**limits))
        hashes = [hash_of(plain) for plain in told.plain] or [*told.hashes]
        known += [(bytes.fromhex(digest), key) for digest in hashes]
    return known

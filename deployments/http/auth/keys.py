"""API keys: read from a file or the environment, compared, reloaded when the file changes."""

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

RELOAD_CHECK_S: Final = 1.0
WORLD_READABLE: Final = 0o004

FileVersion = tuple[int, int, int]

_NO_POSITION: Final = yaml.ScalarNode("", "", yaml.Mark("", 0, 0, 0, "", 0))
"""Position of errors in a source without lines: the first line."""


@dataclass(frozen=True, slots=True)
class Key:
    """A recognised API key."""

    name: str
    allowance: Allowance


class KeyStore:
    """The known API keys. A changed file that cannot be read leaves them unchanged and is logged.

    Raises ``ConfigError`` at construction, with file, line and remedy.
    """

    def __init__(self, config: AccessConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._path = None if config.keys_file is None else Path(config.keys_file).expanduser()
        self._checked_at = clock()
        self._version: FileVersion | None = None
        if self._path is not None:
            self._version = _file_version(self._path)
            self._known = _read_file(self._path)
        else:
            self._known = _read_variable(config.keys_env or "")

    def find(self, token: bytes) -> Key | None:
        """The key of a token, in constant time; ``None`` if it is unknown."""
        self._refresh()
        digest = hashlib.sha256(token).digest()
        found: Key | None = None
        for known, key in self._known:
            if hmac.compare_digest(digest, known):
                found = key
        return found

    def _refresh(self) -> None:
        now = self._clock()
        if self._path is None or now - self._checked_at < RELOAD_CHECK_S:
            return
        self._checked_at = now
        version = _file_version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._known = _read_file(self._path)
        except ConfigError as fault:
            log.error("API keys not reloaded, the old ones stay valid: %s", fault)
        else:
            log.warning("reloaded %d API keys from %s", len(self._known), self._path)


def key_store(config: AccessConfig) -> KeyStore | None:
    """``None`` where no keys are needed. Raises ``ConfigError``."""
    return KeyStore(config) if config.guarded else None


def new_key() -> str:
    """256 random bits, with a prefix that scanners for leaked secrets can match."""
    return f"orc-{secrets.token_urlsafe(32)}"


def entry(name: str, key: str) -> str:
    """The YAML entry of a key for the file of keys. Raises ``ConfigError`` for an invalid name."""
    try:
        config = KeyConfig(name=name, sha256=hash_of(key)).model_dump(include={"name", "sha256"})
    except ValidationError as fault:
        reason = fault.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{name!r}: {reason}") from None
    return yaml.safe_dump([config], sort_keys=False).rstrip()


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _file_version(path: Path) -> FileVersion | None:
    """Changes with the file; ``None`` if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read_file(path: Path) -> list[tuple[bytes, Key]]:
    try:
        text = path.read_text()
        shared = path.stat().st_mode & WORLD_READABLE
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read the keys in {path}: {reason}; correct gateway.access.keys_file"
        ) from None
    keys = _parse(text, path)
    if shared and any(key.plain for key in keys):
        log.warning(
            "%s holds plain keys and every user may read it: chmod 600, or store sha256 only", path
        )
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
        return _known(validated(KeysFile, document, source, _NO_POSITION).keys)
    return _known(_parse(text, source))


def _parse(text: str, source: Path) -> tuple[KeyConfig, ...]:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as fault:
        # The message of PyYAML quotes the line, which may hold a key.
        mark = getattr(fault, "context_mark", None) or getattr(fault, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        raise ConfigError(
            f"{source}:{line}: not valid YAML; write it as docs/security.md shows"
        ) from None
    if not isinstance(document, dict) or node is None:
        raise ConfigError(
            f"{source}:1: has no keys; write it as docs/security.md shows, beginning with keys:"
        )
    return validated(KeysFile, document, source, node).keys


def _known(keys: tuple[KeyConfig, ...]) -> list[tuple[bytes, Key]]:
    """Pairs of SHA-256 digest and key."""
    known = []
    for config in keys:
        limits = {name: getattr(config, name) for name in Allowance.model_fields}
        key = Key(config.name, Allowance(**limits))
        hashes = [hash_of(plain) for plain in config.plain] or [*config.hashes]
        known += [(bytes.fromhex(digest), key) for digest in hashes]
    return known

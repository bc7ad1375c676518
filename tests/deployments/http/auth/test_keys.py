"""Keys from a file and from the environment."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from deployments.http.auth.keys import KeyStore, hash_of, new_key
from runtime.config.access import AccessConfig, Allowance, KeyBudget
from runtime.errors import ConfigError

ANN, BOB, EVE = "key-of-ann-0123456789", "key-of-bob-0123456789", "key-of-eve-0123456789"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, text: str) -> Path:
    """As it should be done: beside, and then in its place."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.chmod(0o600)
    draft.replace(path)
    return path


def one(name: str, key: str) -> str:
    return f"keys:\n  - name: {name}\n    sha256: {hash_of(key)}\n"


def ring(path: Path, clock: Clock | None = None) -> KeyStore:
    return KeyStore(AccessConfig(keys_file=str(path)), clock or Clock())


def names(keys: KeyStore) -> list[str | None]:
    found = [keys.find(key.encode()) for key in (ANN, BOB, EVE)]
    return [None if key is None else key.name for key in found]


def test_a_file_names_keys_by_hash_or_in_full_with_their_limits(tmp_path: Path) -> None:
    path = write(
        tmp_path / "keys.yaml",
        f"""
keys:
  - name: ann
    sha256: {hash_of(ANN).upper()}
    requests_per_minute: 60
    concurrent: 4
    budget: {{tokens: 1000, cost: 2.5, period: month}}
    models: [specfuse]
  - {{name: bob, key: {BOB}}}
""",
    )
    keys = ring(path)
    assert names(keys) == ["ann", "bob", None]
    ann, bob = keys.find(ANN.encode()), keys.find(BOB.encode())
    assert ann is not None and bob is not None
    assert ann.allowance == Allowance(
        requests_per_minute=60,
        concurrent=4,
        budget=KeyBudget(tokens=1000, cost=2.5, period="month"),
        models=("specfuse",),
    )
    assert bob.allowance == Allowance()
    assert keys.find(hash_of(ANN).encode()) is None, "the hash itself is no key"
    assert keys.find(b"") is None


def test_every_key_is_compared_whichever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "keys:\n" + "".join(f"- {{name: k{n}, key: {ANN}{n}}}\n" for n in range(5))
    keys, compared = ring(write(tmp_path / "keys.yaml", text)), []

    def counted(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return left == right

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for token in (f"{ANN}0", f"{ANN}4", "nobody's"):
        compared.clear()
        keys.find(token.encode())
        digest = hashlib.sha256(token.encode()).digest()
        assert [left for left, _ in compared] == [digest] * 5


def test_keys_change_without_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    path = write(tmp_path / "keys.yaml", one("ann", ANN))
    keys = ring(path, clock)
    write(path, one("bob", BOB))
    assert names(keys) == ["ann", None, None], "the file is looked at once a second"
    clock.now = 1.0
    assert names(keys) == [None, "bob", None]
    assert "reloaded 1 API keys" in caplog.text


def test_an_old_key_and_its_successor_are_one_for_a_while(tmp_path: Path) -> None:
    both = f"keys: [{{name: ann, sha256: [{hash_of(ANN)}, {hash_of(EVE)}]}}]"
    assert names(ring(write(tmp_path / "keys.yaml", both))) == ["ann", None, "ann"]


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ("", 1),
        ("keys: []\n", 1),
        (f"keys:\n- {{name: ann, key: {ANN}}}\n- {{name: ann, key: {BOB}}}\n", 1),
        (f"keys:\n  - name: ann\n    key: '{ANN}\n", 3),
        (f"keys:\n  - name: ann\n    key: {ANN}\n    rate: 5\n", 4),
        (f"keys:\n  - name: ann\n    key: {ANN}\n    budget: {{}}\n", 4),
        ("keys:\n  - name: ann\n", 2),
        ("keys:\n  - name: bob\n    key: tooshort!!\n", 2),
        (f"keys:\n  - name: bob\n    key: '{ANN} {BOB}'\n", 2),
        ("keys:\n  - name: bob\n    sha256: abc\n", 2),
    ],
)
def test_a_broken_file_changes_nothing_and_the_log_says_where_it_breaks(
    broken: str, line: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    path = write(tmp_path / "keys.yaml", one("ann", ANN))
    keys = ring(path, clock)
    write(path, broken)
    for clock.now in (1.0, 2.0, 3.0):
        assert names(keys) == ["ann", None, None]
    [result] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"{path}:{line}:" in result.message.split("the old ones stay valid: ")[1]
    for secret in (ANN, BOB, "tooshort!!"):
        assert secret not in caplog.text
    with pytest.raises(ConfigError) as refusal:
        ring(path)
    assert ANN not in str(refusal.value)


def test_a_file_that_is_gone_leaves_the_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    path = write(tmp_path / "keys.yaml", one("ann", ANN))
    keys = ring(path, clock)
    path.unlink()
    clock.now = 5.0
    assert names(keys) == ["ann", None, None]
    assert "cannot read the keys" in caplog.text
    write(path, one("bob", BOB))
    clock.now = 10.0
    assert names(keys) == [None, "bob", None]


def test_a_server_does_not_start_without_the_keys_it_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*correct gateway.access.keys_file"):
        ring(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="MY_KEYS .* is not set"):
        KeyStore(AccessConfig(keys_env="MY_KEYS"))


@pytest.mark.parametrize(
    "text",
    [ANN, f"  {ANN}\n", one("MY_KEYS", ANN), f'{{"keys":[{{"name":"MY_KEYS","key":"{ANN}"}}]}}'],
)
def test_keys_from_the_environment(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEYS", text)
    assert names(KeyStore(AccessConfig(keys_env="MY_KEYS"))) == ["MY_KEYS", None, None]


def test_a_bad_key_in_the_environment_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEYS", "tooshort!!")
    with pytest.raises(ConfigError, match=r"\$MY_KEYS:1: .*16 characters") as refusal:
        KeyStore(AccessConfig(keys_env="MY_KEYS"))
    assert "tooshort" not in str(refusal.value)


def test_keys_that_every_user_may_read_are_remarked_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "keys.yaml", one("ann", ANN))
    path.chmod(0o644)
    ring(path)
    assert not caplog.records, "hashes may be read"
    write(path, f"keys: [{{name: ann, key: {ANN}}}]").chmod(0o644)
    ring(path)
    assert "every user may read it" in caplog.text


def test_sources_exclude_each_other() -> None:
    for both in ({"keys_file": "a", "keys_env": "B"}, {"keys_file": "a", "open": True}):
        with pytest.raises(ValidationError, match="exclude each other"):
            AccessConfig.model_validate(both)


def test_new_keys_are_long_and_differ() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100 and all(len(key) > 40 for key in made)
    assert not any(os.sep in key or " " in key for key in made)

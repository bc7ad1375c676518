"""Agents on disk, and what they see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policies.cascade.sequential.agent import ABOUT, WEIGHTS, Agent, load_agent
from policies.cascade.sequential.features import features, state_text
from policies.cascade.sequential.transfer_prompt import TRANSFER, checked, transfer
from runtime.errors import ConfigError


def agent() -> Agent:
    draw = np.random.default_rng(0)
    shapes = [(4, 3), (3, 4)]
    layers = [(draw.normal(size=shape), draw.normal(size=shape[0])) for shape in shapes]
    return Agent(
        members=("a", "b"),
        layers=tuple((w.astype(np.float32), b.astype(np.float32)) for w, b in layers),
        t_max=5,
        encoder="mini",
        prompts={"a": TRANSFER, "b": TRANSFER},
        about={"seed": 1},
    )


def test_logits_by_hand() -> None:
    one = np.array([[1.0, -1.0]], dtype=np.float32), np.array([0.5], dtype=np.float32)
    two = np.array([[2.0], [-2.0]], dtype=np.float32), np.array([0.0, 1.0], dtype=np.float32)
    result = Agent(("a",), (one, two), 5, "mini", {"a": TRANSFER}).logits(np.array([[1.0, 0.5]]))
    assert result == pytest.approx(np.array([[2 * np.tanh(1.0), 1 - 2 * np.tanh(1.0)]]))


def test_an_agent_comes_back_as_it_was(tmp_path: Path) -> None:
    before = agent()
    before.save(tmp_path)
    after = load_agent(tmp_path)
    seen = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    assert (after.logits(seen) == before.logits(seen)).all()
    assert (after.members, after.t_max, after.about, after.size) == (("a", "b"), 5, {"seed": 1}, 3)


def test_the_version_is_that_of_the_weights(tmp_path: Path) -> None:
    agent().save(tmp_path)
    first = load_agent(tmp_path).version
    agent().save(tmp_path)
    assert load_agent(tmp_path).version == first
    changed = agent()
    changed.layers[0][1][0] += 1e-3
    changed.save(tmp_path)
    assert load_agent(tmp_path).version != first


def test_half_an_export_is_not_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="orchestrion train der"):
        load_agent(tmp_path)
    agent().save(tmp_path)
    changed = agent()
    changed.layers[0][1][0] += 1
    changed.save(tmp_path / "other")
    (tmp_path / WEIGHTS).write_bytes((tmp_path / "other" / WEIGHTS).read_bytes())
    with pytest.raises(ConfigError, match="export anew"):
        load_agent(tmp_path)
    result = json.loads((tmp_path / ABOUT).read_text())
    (tmp_path / ABOUT).write_text(json.dumps({**result, "format": "another-9"}))
    with pytest.raises(ConfigError, match="another-9"):
        load_agent(tmp_path)


def test_an_agent_is_served_without_torch_ray_or_gymnasium() -> None:
    script = (
        "import sys, policies.cascade.sequential.agent;"
        "print(sorted({'torch', 'ray', 'gymnasium', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_what_an_agent_sees() -> None:
    seen = features(np.array([[3.0, 4.0], [0.0, 0.0]]), [0, 2], t_max=5)
    assert seen == pytest.approx(np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 0.4]]))
    assert state_text("Why?", None) == "Question: Why? Answer:  "
    assert state_text("Why?", "So.") == "Question: Why? Answer: So."


def test_the_first_member_gets_the_bare_question() -> None:
    assert transfer("Why?", None) == "Why?"
    later = transfer("Why {x}?", "So {y}.")
    assert later.startswith("Why {x}?") and "So {y}." in later


@pytest.mark.parametrize(
    "template", ["{question}", "{question} {previous} {more}", "{question", ""]
)
def test_a_prompt_that_does_not_name_both_texts_is_refused(template: str) -> None:
    with pytest.raises(ValueError):
        checked(template)
    assert checked(TRANSFER) == TRANSFER

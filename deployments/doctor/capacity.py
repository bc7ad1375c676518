"""Whether all members of a configuration fit this machine together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deployments.config.app_config import AppConfig
from deployments.doctor.facts import Finding, Machine, gib
from deployments.doctor.memory_estimate import COORDINATOR_BYTES, RAY_BYTES, Demand


def check(config: AppConfig, demands: Mapping[str, Demand], machine: Machine) -> Iterator[Finding]:
    """``demands`` is what one replica of each member takes."""
    yield memory(config, demands, machine)
    yield from cards(config, demands, machine)
    yield cpus(config, machine)
    yield from gpus(config, demands, machine)


def memory(config: AppConfig, demands: Mapping[str, Demand], machine: Machine) -> Finding:
    """RAM of everything that runs on this machine against the RAM it has."""
    coordinators = sum(policy.replicas for policy in config.policy_configs().values())
    others = RAY_BYTES + coordinators * COORDINATOR_BYTES
    total = others + sum(
        need.ram * config.served[name].replica.most_replicas for name, need in demands.items()
    )
    unknown = any(need.weights is None and not need.gpus for need in demands.values())
    text = (
        f"{'at least' if unknown else 'about'} {gib(total)} for all replicas, {gib(others)} of it "
        f"for Ray, the gateway and coordinators; this machine has {gib(machine.memory)}, "
        f"{gib(machine.memory_free)} free"
    )
    remedy = (
        "fewer replicas or members, dtype: bfloat16, a smaller cache_mb or kv_cache_memory_bytes"
    )
    if total > machine.memory:
        return Finding("wrong", "all members", text, remedy)
    if total > machine.memory_free:
        return Finding("note", "all members", text, f"stop other programs; or {remedy}")
    return Finding("note" if unknown else "ok", "all members", text)


def cards(config: AppConfig, demands: Mapping[str, Demand], machine: Machine) -> Iterator[Finding]:
    """GPU memory of all replicas against that of all cards."""
    card = smallest_card(machine)
    if card is None or not any(need.gpus for need in demands.values()):
        return
    there = sum(gpu.memory or 0 for gpu in machine.gpus)
    total = sum(
        need.on_cards(card) * config.served[name].replica.most_replicas
        for name, need in demands.items()
    )
    text = f"about {gib(total)} of GPU memory for all replicas; the cards have {gib(there)}"
    if total <= there:
        yield Finding("ok", "all members", text)
    else:
        remedy = "smaller gpu_memory_utilization or kv_cache_memory_bytes, or fewer replicas"
        yield Finding("wrong", "all members", text, remedy)


def cpus(config: AppConfig, machine: Machine) -> Finding:
    """CPUs of all replicas. Too few slow an ensemble down and are no fault: with ``orchestrion
    serve`` replicas share them."""
    needed = sum(m.replica.num_cpus * m.replica.most_replicas for m in config.served.values())
    text = f"{needed:g} CPUs for all replicas; this machine has {machine.cores:g}"
    if needed <= machine.cores:
        return Finding("ok", "all members", text)
    return Finding(
        "note",
        "all members",
        f"{text}: with orchestrion serve replicas share them, with serve run they wait for more",
        "lower replica.num_cpus or num_replicas of members",
    )


def gpus(config: AppConfig, demands: Mapping[str, Demand], machine: Machine) -> Iterator[Finding]:
    """GPUs of all replicas. A replica without a free GPU waits for one and never starts."""
    needed = sum(
        max(member.replica.num_gpus, demands[name].gpus if demands[name].gpus > 1 else 0)
        * member.replica.most_replicas
        for name, member in config.served.items()
    )
    if not needed:
        return
    text = f"{needed:g} GPUs for all replicas; this machine has {len(machine.gpus)}"
    if needed <= len(machine.gpus):
        yield Finding("ok", "all members", text)
    else:
        yield Finding(
            "wrong",
            "all members",
            f"{text}, and replicas without one never start",
            "lower replica.num_gpus, num_replicas or tensor_parallel_size of members",
        )


def smallest_card(machine: Machine) -> int | None:
    """``None`` without cards, or where the driver does not report the memory of all."""
    sizes = [gpu.memory for gpu in machine.gpus if gpu.memory is not None]
    return min(sizes) if sizes and len(sizes) == len(machine.gpus) else None

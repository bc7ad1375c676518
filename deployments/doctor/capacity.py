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
    """RAM of everything that runs on this machine against what there is."""
    coordinators = sum(policy.replicas for policy in config.policy_configs().values())
    others = RAY_BYTES + coordinators * COORDINATOR_BYTES
    total = others + sum(
        need.ram * config.served[name].replica.most_replicas for name, need in demands.items()
    )
    unknown = any(need.weights is None and not need.gpus for need in demands.values())
    told = (
        f"{'at least' if unknown else 'about'} {gib(total)} for all replicas, {gib(others)} of it "
        f"for Ray, the gateway and coordinators; this machine has {gib(machine.memory)}, "
        f"{gib(machine.memory_free)} free"
    )
    remedy = (
        "fewer replicas or members, dtype: bfloat16, a smaller cache_mb or kv_cache_memory_bytes"
    )
    if total > machine.memory:
        return Finding("wrong", "all members", told, remedy)
    if total > machine.memory_free:
        return Finding("note", "all members", told, f"stop other programs; or {remedy}")
    return Finding("note" if unknown else "ok", "all members", told)


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
    told = f"about {gib(total)} of GPU memory for all replicas; the cards have {gib(there)}"
    if total <= there:
        yield Finding("ok", "all members", told)
    else:
        remedy = "smaller gpu_memory_utilization or kv_cache_memory_bytes, or fewer replicas"
        yield Finding("wrong", "all members", told, remedy)


def cpus(config: AppConfig, machine: Machine) -> Finding:
    """More CPUs than there are is slow, no fault: ``orchestrion serve`` lets replicas share."""
    wanted = sum(m.replica.num_cpus * m.replica.most_replicas for m in config.served.values())
    told = f"{wanted:g} CPUs for all replicas; this machine has {machine.cores:g}"
    if wanted <= machine.cores:
        return Finding("ok", "all members", told)
    return Finding(
        "note",
        "all members",
        f"{told}: with orchestrion serve they share them, with serve run they wait for more",
        "lower replica.num_cpus or num_replicas of members",
    )


def gpus(config: AppConfig, demands: Mapping[str, Demand], machine: Machine) -> Iterator[Finding]:
    """A replica that asks for a GPU that is not there waits for it and never starts."""
    wanted = sum(
        max(member.replica.num_gpus, demands[name].gpus if demands[name].gpus > 1 else 0)
        * member.replica.most_replicas
        for name, member in config.served.items()
    )
    if not wanted:
        return
    told = f"{wanted:g} GPUs for all replicas; this machine has {len(machine.gpus)}"
    if wanted <= len(machine.gpus):
        yield Finding("ok", "all members", told)
    else:
        yield Finding(
            "wrong",
            "all members",
            f"{told}, and replicas that find none never start",
            "lower replica.num_gpus, num_replicas or tensor_parallel_size of members",
        )


def smallest_card(machine: Machine) -> int | None:
    """``None`` without cards, or where the driver does not tell the memory of all."""
    sizes = [gpu.memory for gpu in machine.gpus if gpu.memory is not None]
    return min(sizes) if sizes and len(sizes) == len(machine.gpus) else None

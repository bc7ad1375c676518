"""Whether the members of a configuration can start here, and whether they fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deployments.cluster import with_weights
from deployments.config import AppConfig
from deployments.doctor import vllm_build
from deployments.doctor.demand import COORDINATOR_BYTES, RAY_BYTES, Demand, demand, on_gpu
from deployments.doctor.facts import Finding, Installed, Machine, gib
from runtime.config import MemberConfig, VllmEngine
from runtime.errors import WeightsError
from runtime.weights.size import Size

Weights = Size | WeightsError | None
"""What is known of a member's weights: their size, why they cannot be used, or that they are not
here yet."""


def check(
    config: AppConfig,
    weights: Mapping[str, Weights],
    installed: Installed,
    machine: Machine,
    shown: str,
) -> Iterator[Finding]:
    """``shown`` is the file of ``config`` as a command would name it."""
    demands = {}
    for name, member in config.members.items():
        known = weights.get(name)
        demands[name] = demand(
            member.engine,
            known if isinstance(known, Size) else None,
            member.replica.num_gpus,
            installed,
            machine,
        )
        yield from engine(name, member, installed, machine)
        yield from one(name, member, demands[name], known, machine, shown)
    yield memory(config, demands, machine)
    yield from cards(config, demands, machine)
    yield cpus(config, machine)
    yield from gpus(config, demands, machine)


def engine(
    name: str, member: MemberConfig, installed: Installed, machine: Machine
) -> Iterator[Finding]:
    """Whether the packages are there that the member's engine is made of."""
    sees_gpu = installed.other_gpus or (machine.gpus and installed.torch_build != "cpu")
    for needed in with_weights(member.engine):
        if isinstance(needed, VllmEngine):
            missing = [] if vllm_build.builds(installed) else ["vllm"]
            command = vllm_build.install_command(installed, machine)
        else:
            missing = [p for p in ("torch", "transformers") if not installed.has(p)]
            command = f"{installed.pip} install 'orchestrion[local]'"
        if missing:
            told = f"engine type {needed.type} needs {' and '.join(missing)}, not installed"
            yield Finding("wrong", name, told, command)
        elif not isinstance(needed, VllmEngine):
            if needed.device.startswith("cuda") and not sees_gpu:
                told = f"device {needed.device!r}, and torch finds no GPU here"
                yield Finding("wrong", name, told, f"members.{name}.engine: {{device: cpu}}")
        elif (
            needed.workers == 1
            and not member.replica.num_gpus
            and on_gpu(needed, installed, machine)
        ):
            yield Finding(
                "note",
                name,
                "runs on a GPU and asks Ray for none, so others may be placed on the same",
                f"members.{name}.replica: {{num_gpus: 1}}",
            )


def one(
    name: str, member: MemberConfig, need: Demand, known: Weights, machine: Machine, shown: str
) -> Iterator[Finding]:
    """A member's weights and one replica's memory."""
    source = next(iter(with_weights(member.engine)), None)
    if source is None:
        yield Finding("ok", name, f"{member.engine.type}: {gib(need.ram)} a replica, no weights")
        return
    if isinstance(known, WeightsError):
        found, _, remedy = str(known).partition("; ")
        yield Finding("wrong", name, found, remedy or f"correct members.{name}.engine.weights")
        return
    if known is None:
        yield Finding(
            "note",
            name,
            f"{source.type}: {source.weights} is not on this machine, so its size is unknown",
            f"orchestrion fetch {shown}",
        )
        return
    if not (isinstance(source, VllmEngine) and _too_large(need, machine)):
        yield Finding("ok", name, f"{source.type}: {_told(need, known)}")
        return
    yield Finding(
        "wrong",
        name,
        f"{source.type}: {_told(need, known)}; that is more than its part of a card",
        f"members.{name}.engine: more tensor_parallel_size, a larger gpu_memory_utilization or "
        "quantized weights",
    )


def _told(need: Demand, size: Size) -> str:
    where = "RAM" if not need.gpus else f"{need.gpus} GPU{'' if need.gpus == 1 else 's'}"
    cache = f"cache {gib(need.cache)}" if need.share is None else "the cache in what is left"
    taken = "" if need.share is None else f", taking {need.share:.0%} of each"
    return (
        f"weights here, {gib(size.stored)} on disk; about {gib(need.ram)} of RAM a replica: "
        f"processes {gib(need.processes)}; weights {gib(need.weights or 0)} and {cache} in "
        f"{where}{taken}"
    )


def _too_large(need: Demand, machine: Machine) -> bool:
    card = _smallest_card(machine)
    if not need.gpus or card is None:
        return False
    return need.held / need.gpus > (need.share or 1) * card


def _smallest_card(machine: Machine) -> int | None:
    sizes = [gpu.memory for gpu in machine.gpus if gpu.memory is not None]
    return min(sizes) if sizes and len(sizes) == len(machine.gpus) else None


def memory(config: AppConfig, demands: Mapping[str, Demand], machine: Machine) -> Finding:
    """RAM of everything that runs on this machine against what there is."""
    coordinators = sum(policy.replicas for policy in config.policy_configs().values())
    others = RAY_BYTES + coordinators * COORDINATOR_BYTES
    total = others + sum(
        need.ram * config.members[name].replica.num_replicas for name, need in demands.items()
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
    card = _smallest_card(machine)
    if card is None or not any(need.gpus for need in demands.values()):
        return
    there = sum(gpu.memory or 0 for gpu in machine.gpus)
    total = sum(
        need.on_cards(card) * config.members[name].replica.num_replicas
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
    wanted = sum(m.replica.num_cpus * m.replica.num_replicas for m in config.members.values())
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
        * member.replica.num_replicas
        for name, member in config.members.items()
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

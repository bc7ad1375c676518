"""Whether each member of a configuration can start here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deployments.config.app_config import AppConfig
from deployments.doctor import capacity, vllm_build
from deployments.doctor.capacity import smallest_card
from deployments.doctor.facts import Finding, Installed, Machine, gib
from deployments.doctor.memory_estimate import Demand, demand, on_gpu
from deployments.launch.weights import with_weights
from runtime.config.engine_base import PluginEngine
from runtime.config.engines import VllmEngine, innermost
from runtime.config.members import MemberConfig
from runtime.errors import WeightsError
from runtime.weights.size import Size

Weights = Size | WeightsError | None
"""A member's weights: their size, why they cannot be used, or ``None`` while they are not on this
machine."""


def check(
    config: AppConfig,
    weights: Mapping[str, Weights],
    installed: Installed,
    machine: Machine,
    shown: str,
) -> Iterator[Finding]:
    """``shown`` is the file of ``config`` as a command would name it."""
    demands = {}
    for name, member in config.served.items():
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
    yield from capacity.check(config, demands, machine)


def engine(
    name: str, member: MemberConfig, installed: Installed, machine: Machine
) -> Iterator[Finding]:
    """Whether the packages that the member's engine needs are installed."""
    sees_gpu = installed.other_gpus or (machine.gpus and installed.torch_build != "cpu")
    for needed in with_weights(member.engine):
        if isinstance(needed, VllmEngine):
            missing = [] if vllm_build.builds(installed) else ["vllm"]
            command = vllm_build.install_command(installed, machine)
        else:
            missing = [p for p in ("torch", "transformers") if not installed.has(p)]
            command = f"{installed.pip} install -e '.[local]'"
        if missing:
            text = f"engine type {needed.type} needs {' and '.join(missing)}, not installed"
            yield Finding("wrong", name, text, command)
        elif not isinstance(needed, VllmEngine):
            if needed.device.startswith("cuda") and not sees_gpu:
                text = f"device {needed.device!r}, and torch finds no GPU on this machine"
                yield Finding("wrong", name, text, f"members.{name}.engine: {{device: cpu}}")
        elif (
            needed.workers == 1
            and not member.replica.num_gpus
            and on_gpu(needed, installed, machine)
        ):
            yield Finding(
                "note",
                name,
                "runs on a GPU and reserves none with Ray, so others may be placed on it too",
                f"members.{name}.replica: {{num_gpus: 1}}",
            )


def one(
    name: str, member: MemberConfig, need: Demand, known: Weights, machine: Machine, shown: str
) -> Iterator[Finding]:
    """A member's weights and one replica's memory."""
    source = next(iter(with_weights(member.engine)), None)
    if isinstance(innermost(member.engine), PluginEngine):
        text = f"{member.engine.type}: an engine from a package; its memory is not known here"
        yield Finding("ok", name, text)
        return
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
        yield Finding("ok", name, f"{source.type}: {_described(need, known)}")
        return
    yield Finding(
        "wrong",
        name,
        f"{source.type}: {_described(need, known)}; that is more than its part of a card",
        f"members.{name}.engine: more tensor_parallel_size, a larger gpu_memory_utilization or "
        "quantized weights",
    )


def _described(need: Demand, size: Size) -> str:
    where = "RAM" if not need.gpus else f"{need.gpus} GPU{'' if need.gpus == 1 else 's'}"
    cache = f"cache {gib(need.cache)}" if need.share is None else "the cache in what is left"
    taken = "" if need.share is None else f", taking {need.share:.0%} of each"
    return (
        f"weights here, {gib(size.stored)} on disk; about {gib(need.ram)} of RAM a replica: "
        f"processes {gib(need.processes)}; weights {gib(need.weights or 0)} and {cache} in "
        f"{where}{taken}"
    )


def _too_large(need: Demand, machine: Machine) -> bool:
    card = smallest_card(machine)
    if not need.gpus or card is None:
        return False
    return need.held / need.gpus > (need.share or 1) * card

"""Disk, shared memory, control groups and GPUs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deployments.doctor import cgroups, hardware, probe
from deployments.doctor.facts import Gpu
from tests.support.invented_machines import (
    GIB,
    LAPTOP,
)


def test_a_cache_that_cannot_be_written_is_wrong_and_little_room_is_told() -> None:
    closed = hardware.disk(replace(LAPTOP, cache_writable=False))
    assert closed.level == "wrong" and "ORCHESTRION_CACHE" in closed.remedy
    assert hardware.disk(replace(LAPTOP, disk_free=GIB)).level == "note"


def test_too_little_shared_memory_for_rays_object_store_is_told() -> None:
    found = hardware.shared_memory(replace(LAPTOP, shm_free=64 * 2**20))
    assert found.level == "note" and "--shm-size" in found.remedy
    assert hardware.shared_memory(replace(LAPTOP, shm_free=None)).level == "ok"


def test_the_limits_of_a_container_count_in_both_versions(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    write("proc/self/cgroup", "0::/pod/box\n")
    write("sys/fs/cgroup/pod/box/memory.max", "max\n")
    write("sys/fs/cgroup/pod/memory.max", f"{4 * GIB}\n")
    write("sys/fs/cgroup/pod/memory.current", f"{GIB}\n")
    write("sys/fs/cgroup/pod/box/cpu.max", "150000 100000\n")
    assert list(cgroups.memory_limits(tmp_path)) == [(4 * GIB, GIB)]
    assert cgroups.cpu_limit(tmp_path) == 1.5

    write("proc/self/cgroup", "5:cpu,cpuacct:/box\n4:memory:/box\n0::/\n")
    write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", f"{2 * GIB}\n")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "50000\n")
    write("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    assert list(cgroups.memory_limits(tmp_path)) == [(2 * GIB, 0)]
    assert cgroups.cpu_limit(tmp_path) == 0.5


def test_a_machine_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert list(cgroups.memory_limits(tmp_path)) == []
    assert cgroups.cpu_limit(tmp_path) is None


def test_gpus_are_read_as_the_driver_lists_them_and_the_environment_shows_them() -> None:
    listed = "0, GPU-aa, 81559, Card, large\n1, GPU-bb, [N/A], Slice\n"
    both = (Gpu("Card, large", 81559 * 2**20), Gpu("Slice", None))
    assert probe.read_gpus(listed, None) == both
    assert probe.read_gpus(listed, "1") == both[1:]
    assert probe.read_gpus(listed, "GPU-aa") == both[:1]
    assert probe.read_gpus(listed, "") == ()

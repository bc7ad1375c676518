"""Machines of a test's own: namespaces of Linux, each with its address, processes, home and sshd.

They see this machine's files, but neither its network nor its processes: what is started there can
reach nothing outside, ``ray stop`` finds that machine's Ray only, and all of it ends with the
machine, which ends with the test's process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

NETWORK: Final = "10.77.0"
ROUTER: Final = f"{NETWORK}.254"
SSHD: Final = "/usr/sbin/sshd"
PACKAGES: Final = "openssh-server rsync curl iproute2 procps util-linux"
UNDER_US: Final = ("setpriv", "--pdeathsig", "KILL")
"""A process that is killed when ours ends, however that ends."""

BOOT: Final = r"""
set -e
mount --bind {root}/passwd /etc/passwd
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd /run/tmp
mount --rbind /tmp /run/tmp
mount -t tmpfs tmpfs /tmp  # Ray's names there are fixed; what else is there can be seen
find /run/tmp -mindepth 1 -maxdepth 1 -not -name 'ray*' | xargs -d '\n' ln -s -t /tmp
hostname {name}
ip link set lo up
exec {sshd} -D -e -f {root}/sshd_config
"""

SSHD_CONFIG: Final = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""

PROFILE: Final = """
export PATH={bin}:$PATH PYTHONPATH=$HOME/orchestrion
export RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
export RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S=60
"""


def missing() -> str | None:
    """Why there can be no such machines here, if there can be none."""
    for tool in (SSHD, *"rsync ssh ssh-keygen curl ip ps unshare nsenter setpriv".split()):
        if shutil.which(tool) is None:
            return f"needs {tool}: apt-get install {PACKAGES}"
    if os.geteuid() != 0:
        return "needs root, to make machines out of namespaces"
    tried = [*"unshare --net --pid --mount --uts --fork --mount-proc ip link set lo up".split()]
    probe = subprocess.run(tried, capture_output=True, text=True)
    if probe.returncode != 0:
        return f"needs namespaces, which this machine refuses: {probe.stderr.strip()}"
    return None


class Machine:
    """A booted machine; ``name`` is also its host name."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name, self.address = name, f"{NETWORK}.{number}"
        self.root = folder / name
        self.home = self.root / "home"
        self.home.mkdir(parents=True)
        (self.root / "passwd").write_text(
            f"root:x:0:0:root:{self.home}:/bin/bash\n"
            "sshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        (self.root / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder))
        (self.home / ".profile").write_text(PROFILE.format(bin=Path(sys.executable).parent))
        (self.home / ".bashrc").touch()  # Ray's commands source it
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        script = BOOT.format(root=self.root, name=self.name, sshd=SSHD)
        new = "--net --pid --mount --uts --fork --kill-child --mount-proc".split()
        with (self.root / "console").open("wb") as console:
            self._process = subprocess.Popen(
                [*UNDER_US, "unshare", *new, "bash", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def init(self) -> int:
        """The machine's first process, as seen from outside."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        deadline = time.monotonic() + 10
        while not (found := children.read_text().split()):
            assert time.monotonic() < deadline, (self.root / "console").read_text()
            time.sleep(0.02)
        return int(found[0])

    def wait_until_up(self) -> None:
        console = self.root / "console"
        deadline = time.monotonic() + 30
        while "Server listening" not in console.read_text():
            assert time.monotonic() < deadline, console.read_text()
            time.sleep(0.05)

    def inside(self, command: str) -> list[str]:
        """A command line that runs ``command`` in a login shell of the machine."""
        into = ["nsenter", "-t", str(self.init), "--net", "--pid", "--mount", "--uts"]
        home = ["env", "-i", f"HOME={self.home}", "USER=root", "TERM=dumb", f"--chdir={self.home}"]
        return [*into, *home, "bash", "--login", "-c", command]

    def run(self, command: str, timeout: float = 120) -> str:
        """What ``command`` prints there."""
        done = subprocess.run(
            self.inside(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{command} on {self.name}: {done.stdout}"
        return done.stdout

    def start(self, command: str, **more: Any) -> subprocess.Popen[str]:
        """``command`` in the background, until it ends or the machine does."""
        return subprocess.Popen(
            [*UNDER_US, *self.inside(command)], stdin=subprocess.DEVNULL, text=True, **more
        )

    def power_off(self) -> None:
        """At once: every process is killed, and the network with it."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def machines(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Machine]]:
    """Machines on one switch, which leads nowhere else; ``folder`` holds their files and the keys
    ``host_key`` and ``user_key``."""
    for key in ("host_key", "user_key"):
        made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(made, check=True)
    with ExitStack() as stack:
        switch = subprocess.Popen([*UNDER_US, "unshare", "--net", "sleep", "infinity"])
        stack.callback(switch.wait)
        stack.callback(switch.kill)
        _wait_for_own_network(switch.pid)
        _ip(switch.pid, "link add switch type bridge", "link set switch up")
        _ip(switch.pid, f"addr add {ROUTER}/24 dev switch", "route add unreachable default")
        # A router that refuses at once, so that nobody waits for an answer from the world.
        forward = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]
        subprocess.run(["nsenter", "-t", str(switch.pid), "--net", *forward], check=True)
        booted: dict[str, Machine] = {}
        for number, name in enumerate(names, 1):
            machine = booted[name] = Machine(name, number, folder)
            machine.boot()
            stack.callback(machine.power_off)
            _wait_for_own_network(machine.init)
            _plug_in(machine, switch.pid, number)
        for machine in booted.values():
            machine.wait_until_up()
        yield booted


def _plug_in(machine: Machine, switch: int, number: int) -> None:
    port = f"port{number}"
    _ip(switch, f"link add {port} type veth peer name eth0 netns {machine.init}")
    _ip(switch, f"link set {port} master switch up")
    _ip(machine.init, f"addr add {machine.address}/24 dev eth0", "link set eth0 up")
    # Where Ray asks which of its addresses would reach the world.
    _ip(machine.init, f"route add default via {ROUTER}")


def _ip(process: int, *commands: str) -> None:
    for command in commands:
        inside = ["nsenter", "-t", str(process), "--net", "ip", *command.split()]
        subprocess.run(inside, check=True, capture_output=True)


def _wait_for_own_network(process: int) -> None:
    ours = os.readlink("/proc/self/ns/net")
    deadline = time.monotonic() + 10
    while os.readlink(f"/proc/{process}/ns/net") == ours:
        assert time.monotonic() < deadline, "no network namespace was made"
        time.sleep(0.02)

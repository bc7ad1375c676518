"""Ray and Serve on this machine, on loopback only; all processes are stopped afterwards."""

from __future__ import annotations

import io
import ipaddress
import logging
import math
import os
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

import psutil
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deployments.config.app_config import AppConfig
from deployments.http.auth.keys import key_store
from deployments.http.auth.network import refuse_exposed
from deployments.progress import console
from deployments.serving.names import encoder_deployment, member_deployment, reward_deployment
from runtime.config.members import MemberConfig
from runtime.errors import ConfigError, EngineFault

APP = "orchestrion"
HOST = "127.0.0.1"
NO_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def serving(
    config: AppConfig,
    *,
    host: str = HOST,
    port: int = 8000,
    metrics_port: int | None = None,
    timeout_s: float = 600,
    cpus: float = 0,
    logs: dict[str, Any] | None = None,
) -> Iterator[str]:
    """Serves ``config``; yields the base URL of the endpoint and stops all processes on exit.

    ``cpus``: further CPUs for other work in this Ray. ``logs``: Serve's ``logging_config``. Raises
    ``ConfigError`` when the port is in use, this process runs Ray already, or API keys cannot be
    read; ``EngineFault`` when a member does not start.
    """
    refuse_exposed(config.gateway.access, host)
    key_store(config.gateway.access)
    _check_port(host, port)
    _check_no_ray()
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with _on_loopback():
        try:
            _start_ray(config, metrics_port, cpus)
            _start_serve(config, host, port, timeout_s, logs)
            yield f"http://{host}:{port}/v1"
        finally:
            _stop(before)


@contextmanager
def joined(config: AppConfig | None, cpus: float = 0, timeout_s: float = 600) -> Iterator[None]:
    """Ray for a driver: the cluster of RAY_ADDRESS, as in a job, or a new one on this machine with
    ``cpus`` more. With ``config`` its models run there meanwhile, unless they run already.

    Raises ``ConfigError`` if the cluster's application lacks a model of ``config``, or when this
    process runs Ray already.
    """
    import ray

    _check_no_ray()
    inside = bool(os.environ.get("RAY_ADDRESS"))
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    own = False
    with nullcontext() if inside else _on_loopback():
        try:
            if inside:
                ray.init(log_to_driver=False, logging_level=logging.ERROR)
            else:
                _start_ray(config, None, cpus)
            if config is not None:
                own = _deploy(config, timeout_s)
            yield
        finally:
            try:
                if own:
                    from ray import serve

                    serve.delete(APP)
            finally:
                if inside:
                    ray.shutdown()
                else:
                    _stop(before)


def models_application(config: AppConfig, running: Container[str]) -> str:
    """The application with the deployments of the models: ``models_app`` where that one runs."""
    models_app = config.models_app
    return APP if models_app is None or models_app not in running else models_app


def _deploy(config: AppConfig, timeout_s: float) -> bool:
    """Deploys the application unless it runs; returns whether it did. A running application is not
    changed: it may serve others."""
    from ray import serve

    from deployments.app import build_app

    running = serve.status().applications
    if APP not in running:
        serve._run(build_app(config.whole()), name=APP, route_prefix="/", _blocking=False)
        try:
            _wait_until_up(timeout_s)
        except BaseException:
            serve.delete(APP)
            raise
        return True
    _wait_until_up(timeout_s)
    needed = [
        *map(member_deployment, config.members),
        *map(encoder_deployment, config.encoders),
        *map(reward_deployment, config.reward_models),
    ]
    running = serve.status().applications
    models_app = models_application(config, running)
    missing = [name for name in needed if name not in running[models_app].deployments]
    if missing:
        raise ConfigError(
            f"the application {models_app!r} of this cluster has no deployment {missing[0]!r}; "
            "deploy the Serve config of the training first"
        )
    return False


def _check_port(host: str, port: int) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({fault.strerror}); stop what runs there or "
                "choose another port with --port"
            ) from None


def _check_no_ray() -> None:
    import ray

    if ray.is_initialized():
        raise ConfigError(
            "Ray already runs in this process, perhaps not on loopback only; leave out ray.init(), "
            "or call ray.shutdown() first"
        )


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that starts inside listens on loopback only, even if it was imported before.

    Ray replaces a loopback node address by the machine's own one unless ``NO_CLUSTER`` is 0. It
    reads that variable once, at import, into a constant that it reads whenever a node starts
    (``get_node_ip_address``, ray/_private/services.py, Ray 2.60). The constant applies to this
    process, the variable to the processes that Ray starts. Both are restored, since a driver of a
    real cluster needs them. Raises ``ConfigError`` if the constant has no effect.
    """
    import ray
    from ray._private import ray_constants

    variable, constant = os.environ.get(NO_CLUSTER), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[NO_CLUSTER], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        address = ray.util.get_node_ip_address()
        if not ipaddress.ip_address(address).is_loopback:
            raise ConfigError(
                f"Ray {ray.__version__} would listen on {address}, not on loopback only; set "
                f"{NO_CLUSTER}=0 before Python starts, or install the Ray that pyproject.toml names"
            )
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        if variable is None:
            del os.environ[NO_CLUSTER]
        else:
            os.environ[NO_CLUSTER] = variable


def _start_ray(config: AppConfig | None, metrics_port: int | None, cpus: float = 0) -> None:
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        console.print(
            "[yellow]warning:[/yellow] RAY_AUTH_MODE=disabled: any process that connects to this "
            "machine's Ray can run code here (docs/security.md)"
        )
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # By default Serve kills a proxy that is not up after 5 s; imports may take longer.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    # By default Serve checks proxies every 10 s; clients of a dead one fail until then.
    os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "2")
    import ray

    served: dict[str, MemberConfig] = {} if config is None else config.served
    wanted = sum(m.replica.num_cpus * m.replica.most_replicas for m in served.values())
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, math.ceil(wanted + cpus)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address=HOST,
        _metrics_export_port=metrics_port,
    )


def _start_serve(
    config: AppConfig, host: str, port: int, timeout_s: float, logs: dict[str, Any] | None
) -> None:
    from ray import serve

    from deployments.app import build_app

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    http, app = {"host": host, "port": port}, build_app(config.whole())
    serve.start(proxy_location="HeadOnly", http_options=http, logging_config=logs)
    serve._run(app, name=APP, route_prefix="/", _blocking=False, logging_config=logs)
    _wait_until_up(timeout_s)


def scrape_url() -> str:
    """The URL at which this node exports its metrics for Prometheus."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    [node] = [node for node in ray.nodes() if node["NodeID"] == here]
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def _wait_until_up(timeout_s: float) -> None:
    """Shows which deployments are up until all are."""
    from ray import serve

    deadline = time.monotonic() + timeout_s
    columns = (TextColumn("starting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        while True:
            app = serve.status().applications.get(APP)
            states = {} if app is None else app.deployments
            up = sum(d.status == "HEALTHY" for d in states.values())
            progress.update(task, total=len(states) or None, completed=up)
            if app is not None and app.status == "RUNNING":
                return
            if app is not None and app.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                bad = [f"{n}: {d.message}" for n, d in states.items() if d.status != "HEALTHY"]
                raise EngineFault("\n".join([app.message, *bad]))
            if time.monotonic() > deadline:
                late = [name for name, d in states.items() if d.status != "HEALTHY"]
                raise EngineFault(f"deployments not ready after {timeout_s:g} s: {', '.join(late)}")
            time.sleep(0.2)


def _stop(before: set[int]) -> None:
    import ray
    from ray import serve

    started = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    if ray.is_initialized():
        # Ray prints that the controller was killed, which is expected here.
        with redirect_stdout(io.StringIO()):
            try:
                serve.shutdown()
            finally:
                ray.shutdown()
    _, alive = psutil.wait_procs(started, timeout=10)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)


def serve_options(document: dict[str, Any]) -> tuple[str, int]:
    """Host and port of a Serve config, with our defaults."""
    options = document.get("http_options") or {}
    return options.get("host", HOST), options.get("port", 8000)

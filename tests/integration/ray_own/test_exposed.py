"""With ``serve deploy`` only Serve knows where it listens: the gateway asks it. Here it is made to
listen on all addresses and to start no proxy, so that nothing does."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from deployments.config.app_config import AppConfig
from deployments.launch.local_ray import APP, _start_ray, _stop, _wait_until_up
from runtime.errors import EngineFault
from tests.support.local_stack import animals


def config(**access: Any) -> AppConfig:
    whole = animals() | {"gateway": {"access": access}}
    for member in whole["members"].values():
        member["replica"] = {"num_cpus": 0.1}
    return AppConfig.model_validate(whole)


@pytest.mark.slow
@pytest.mark.ray
def test_a_gateway_that_others_reach_does_not_come_up_without_keys() -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    try:
        _start_ray(config(), None)
        from ray import serve

        from deployments.app import build_app

        everywhere = {"host": "0.0.0.0", "port": 1}
        serve.start(proxy_location="Disabled", http_options=everywhere)
        serve._run(build_app(config()), name=APP, route_prefix="/", _blocking=False)
        with pytest.raises(EngineFault, match=r"listen on 0\.0\.0\.0.*has no keys.*keys_file"):
            _wait_until_up(120)
        serve.delete(APP)
        serve._run(build_app(config(open=True)), name=APP, route_prefix="/", _blocking=False)
        _wait_until_up(120)
    finally:
        _stop(before)

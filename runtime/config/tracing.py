"""Where OpenTelemetry spans go, if anywhere."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from runtime.config.base import Strict


class TracingConfig(Strict):
    """Needs ``pip install -e '.[otel]'``. For all that is not set here the standard
    ``OTEL_*`` variables of each process's environment hold."""

    exporter: Literal["otlp", "console", "file"] = "otlp"
    """``otlp``: a collector over HTTP. ``console``: standard output, which Serve keeps in its log.
    ``file``: JSON lines, a file for each process."""
    endpoint: str | None = Field(None, pattern="^https?://")
    """The collector's address for traces, such as ``http://localhost:4318/v1/traces``. Absent:
    ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_ENDPOINT``. Headers with secrets
    belong into ``OTEL_EXPORTER_OTLP_HEADERS``."""
    folder: str | None = None
    """Of the exporter ``file``."""
    sample: float | None = Field(None, ge=0, le=1)
    """Share of the requests whose client has not decided (by ``traceparent``). Absent:
    ``OTEL_TRACES_SAMPLER``, or all."""

    @model_validator(mode="after")
    def _fits_its_exporter(self) -> TracingConfig:
        if (self.exporter == "file") != (self.folder is not None):
            raise ValueError("folder and the exporter file go together; set both or neither")
        if self.endpoint is not None and self.exporter != "otlp":
            raise ValueError("endpoint is for the exporter otlp; leave one out")
        return self

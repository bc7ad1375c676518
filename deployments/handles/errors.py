"""Errors that cross a Serve handle, as the typed errors of the runtime."""

from __future__ import annotations

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from runtime.errors import EngineFault, OrchestrionError, Overloaded

GONE = (RayError, DeploymentUnavailableError, ReplicaUnavailableError)


def typed(fault: Exception, what: str) -> OrchestrionError:
    """Ray's faults in our words. A fault of our own comes back as it was raised."""
    if isinstance(fault, RayTaskError):
        if isinstance(fault.cause, OrchestrionError):
            return fault.cause
        return EngineFault(f"{what} failed: {fault.cause!r}")
    if isinstance(fault, BackPressureError):
        return Overloaded(what)
    return EngineFault(f"{what} is gone ({type(fault).__name__})")

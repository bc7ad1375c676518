"""Errors that cross a Serve handle, as the typed errors of the runtime."""

from __future__ import annotations

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from runtime.errors import EngineFault, OrchestrionError, Overloaded

LOST_REPLICA = (RayError, DeploymentUnavailableError, ReplicaUnavailableError)


def orchestrion_error(fault: Exception, what: str) -> OrchestrionError:
    """The runtime error for an error of Ray or Serve. A runtime error that a replica raised is
    returned as it was raised. ``what`` names the target in messages."""
    if isinstance(fault, RayTaskError):
        if isinstance(fault.cause, OrchestrionError):
            return fault.cause
        return EngineFault(f"{what} failed: {fault.cause!r}")
    if isinstance(fault, BackPressureError):
        return Overloaded(what)
    return EngineFault(f"{what} was lost ({type(fault).__name__})")

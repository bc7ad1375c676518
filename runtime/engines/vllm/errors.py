"""Maps vLLM's errors to our types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vllm.exceptions import (
    MaxQueuedTokensError,
    QueueOverflowError,
    VLLMClientError,
    VLLMServerError,
)

from runtime.errors import BadRequest, EngineFault, Overloaded


@contextmanager
def typed_faults(model: str) -> Iterator[None]:
    """Raises ``Overloaded`` when the queue is full, ``BadRequest`` when vLLM rejects a call, and
    ``EngineFault`` when it fails."""
    try:
        yield
    except (QueueOverflowError, MaxQueuedTokensError) as full:
        raise Overloaded(f"the queue of {model}") from full
    except VLLMClientError as refused:
        raise BadRequest(f"vLLM rejects the call: {refused}") from refused
    except VLLMServerError as broken:
        cause = broken.__cause__ or broken
        raise EngineFault(f"vLLM failed to serve {model}: {cause!r}") from broken

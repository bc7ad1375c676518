"""``hf:org/name[@revision]``: a Hugging Face repository, in the hub's own cache."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import WeightsError
from runtime.weights import progress
from runtime.weights.cache import offline
from runtime.weights.checkpoint import check_folder, check_hash

_ALLOWED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.jinja", "*.txt"]
_IGNORED = ["*/*", "consolidated*"]
"""Other formats and second copies of the weights."""


def fetch(name: str, sha256: str | None) -> Path:
    """The repository's snapshot folder. Raises ``WeightsError``."""
    # Imported late: the client takes a second to import and is needed for these weights only.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    weights = f"hf:{name}"
    repository, _, revision = name.partition("@")
    if not progress.on_terminal():
        progress.say(f"looking for {weights}")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=_ALLOWED,
            ignore_patterns=_IGNORED,
            local_files_only=offline(),
        )
    except HFValidationError as fault:
        raise WeightsError(f"weights {weights!r}: {fault}; write hf:org/name[@revision]") from None
    except GatedRepoError:
        raise WeightsError(
            f"weights {weights!r}: its owner grants access on request; accept the terms on "
            f"https://huggingface.co/{repository}, then set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise WeightsError(
            f"weights {weights!r}: no such repository, or a private one; correct the name or set "
            "HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise WeightsError(
            f"weights {weights!r}: the repository has no revision {revision!r}; name a branch, tag "
            "or commit that it has"
        ) from None
    except LocalEntryNotFoundError:
        reason = "ORCHESTRION_OFFLINE or HF_HUB_OFFLINE is set" if offline() else "no connection"
        raise WeightsError(
            f"weights {weights!r}: not cached, and the hub cannot be reached ({reason}); fetch "
            "them once with the network, or give a folder"
        ) from None
    except OSError as fault:
        raise WeightsError(
            f"weights {weights!r}: the hub could not be read ({fault}); check the network and the "
            "free disk and try again, or give a folder"
        ) from None
    path = Path(folder)
    check_folder(path, weights)
    check_hash(path, weights, sha256)
    return path


def find(name: str) -> Path | None:
    """The snapshot folder if the hub's cache has it complete; no network access."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    weights = f"hf:{name}"
    repository, _, revision = name.partition("@")
    try:
        path = Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=_ALLOWED,
                ignore_patterns=_IGNORED,
                local_files_only=True,
            )
        )
        check_folder(path, weights)
    except HFValidationError as fault:
        raise WeightsError(f"weights {weights!r}: {fault}; write hf:org/name[@revision]") from None
    except (LocalEntryNotFoundError, WeightsError):
        return None
    return path

"""What Ray makes of a cluster file. Its modules for that are private: only this one knows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def prepared(path: Path) -> dict[str, Any]:
    """The file with Ray's defaults filled in, as ``ray up`` would use it. Raises where Ray's schema
    or the provider's rules refuse it. Asks nobody: cloud providers are not imported."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    return config

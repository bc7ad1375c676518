"""Reading a Serve configuration file: Serve's own schema, and our document in `args`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from deployments.config.app_config import AppConfig
from deployments.config.error_messages import validated
from deployments.config.yaml_nodes import read_yaml
from runtime.errors import ConfigError

IMPORT_PATH = "deployments.app:build_app"


class HttpOptions(BaseModel):
    """Where Serve listens; Serve itself knows more options and checks them."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, lt=2**16)


class ServeFile(BaseModel):
    """A Ray Serve config, as far as an unknown key would go unnoticed before Ray starts."""

    model_config = ConfigDict(extra="forbid")

    proxy_location: str | None = None
    http_options: HttpOptions | None = None
    grpc_options: Any = None
    controller_options: Any = None
    logging_config: Any = None
    tracing_config: Any = None
    target_capacity: Any = None
    applications: Any = None


def load(path: Path) -> tuple[dict[str, Any], AppConfig]:
    """The Serve document of a file and our configuration inside it.

    Raises ``ConfigError`` that names file, line, key and remedy.
    """
    document, node = read_yaml(path)
    validated(ServeFile, document, path, node)
    applications = document.get("applications")
    if not isinstance(applications, list):
        raise ConfigError(
            f"{path} has no list of applications: it must be a Ray Serve config; "
            "start from examples/quickstart.yaml"
        )
    for index, application in enumerate(applications):
        if isinstance(application, dict) and application.get("import_path") == IMPORT_PATH:
            where = ("applications", index, "args")
            args = application.get("args", {})
            return document, validated(AppConfig, args, path, node, where)
    raise ConfigError(f"{path} has no application with import_path {IMPORT_PATH}")

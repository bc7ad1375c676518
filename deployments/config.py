"""The whole document: the runtime's configuration with the methods' own, read from Serve YAML.

One file serves ``serve run``, ``serve deploy`` and ``orchestrion serve``: a Ray Serve config whose
application imports ``deployments.app:build_app`` and carries our document as its ``args``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deployments.yaml_file import read_yaml
from policies import METHODS
from runtime.config.aux_models import EncoderConfig
from runtime.config.document import RuntimeConfig
from runtime.config.ensembles import PolicyConfig
from runtime.config.members import MemberConfig
from runtime.config.reward_models import RewardModelConfig
from runtime.errors import ConfigError

IMPORT_PATH = "deployments.app:build_app"

if TYPE_CHECKING:
    AnyPolicyConfig = PolicyConfig
else:
    AnyPolicyConfig = Annotated[
        Union[tuple(config for _, config in METHODS.values())],  # noqa: UP007
        Field(discriminator="type"),
    ]


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


class AppConfig(RuntimeConfig):
    """Members and ensembles by name; every name is a model of the endpoint."""

    ensembles: dict[str, AnyPolicyConfig] = {}
    reward_models: dict[str, RewardModelConfig] = {}
    """Process reward models, by the names under which ensembles ask them."""

    encoders: dict[str, EncoderConfig] = {}
    """Text encoders, by the names under which ensembles ask them."""

    models_app: str | None = None
    """Another Serve application that runs the models (``deployments.models:build_models`` with the
    same ``members``), so that changed ensembles do not restart them; absent: this one. On a single
    machine, ``orchestrion serve`` runs them itself in any case."""

    def whole(self) -> AppConfig:
        """Everything in one application."""
        return self.model_copy(update={"models_app": None})

    @property
    def served(self) -> dict[str, MemberConfig]:
        """All that has weights and replicas: the members, and reward models and encoders alike."""
        judges = {
            name if number == 1 else f"{name} ({number})": member
            for name, judge in self.reward_models.items()
            for number, member in enumerate(judge.as_members(), 1)
        }
        encoders = {name: encoder.as_member() for name, encoder in self.encoders.items()}
        return self.members | judges | encoders

    def own_encoder(self, policy: PolicyConfig) -> str | None:
        """The encoder of its own that an ensemble asks; ``None`` where one of its members encodes,
        or nobody does."""
        name = policy.encoded_by
        return None if name is None or name in policy.members else name

    @model_validator(mode="after")
    def _references_exist(self) -> AppConfig:
        sections = (self.members, self.ensembles, self.reward_models, self.encoders)
        for kind, section in (("a reward model", sections[2]), ("an encoder", sections[3])):
            for name in section:
                if sum(name in other for other in sections) > 1:
                    raise ValueError(f"{name!r} names {kind} and something else; rename one")
        for name, ensemble in self.ensembles.items():
            if name in self.members:
                raise ValueError(f"{name!r} names both a member and an ensemble; rename one")
            if ensemble.judge is not None and ensemble.judge not in self.reward_models:
                known = list(self.reward_models)
                raise ValueError(
                    f"ensemble {name!r} wants reward model {ensemble.judge!r}, which is not under "
                    "reward_models" + (nearest(ensemble.judge, known) if known else "")
                )
            encoder = self.own_encoder(ensemble)
            if encoder is not None and encoder not in self.encoders:
                known = [*self.encoders, *ensemble.members]
                raise ValueError(
                    f"ensemble {name!r} wants encoder {encoder!r}, which is neither under encoders "
                    "nor among its members" + nearest(encoder, known)
                )
            for member in ensemble.members:
                if member not in self.members:
                    raise ValueError(
                        f"ensemble {name!r} wants member {member!r}, which is not configured"
                        + nearest(member, list(self.members))
                    )
        return self

    def policy_configs(self) -> dict[str, PolicyConfig]:
        return dict(self.ensembles)


def nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


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


M = TypeVar("M", bound=BaseModel)


def validated(
    model: type[M], value: Any, path: Path, node: yaml.Node, where: Sequence[str | int] = ()
) -> M:
    """A part of a document as the model. Raises ``ConfigError`` that names file, line, key and
    remedy."""
    try:
        return model.model_validate(value)
    except ValidationError as invalid:
        raise ConfigError(explain(path, node, where, invalid, model)) from None


def explain(
    path: Path, node: yaml.Node, where: Sequence[str | int], invalid: ValidationError, root: Any
) -> str:
    """One line for each mistake: file:line: key: what is wrong, and the nearest valid key."""
    lines = []
    for error in invalid.errors():
        loc = [*where, *error["loc"]]
        line, known = _line(node, loc)
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = f"unknown key{_valid_keys(root, error['loc'])}"
        elif error["type"] == "missing":
            message = f"the key {loc[-1]} is missing"
        elif error["loc"][-1:] == ("[key]",):
            message = "a name must be text; put it into quotes"
        elif error["type"] == "union_tag_invalid":
            context = error.get("ctx", {})
            message = f"unknown type {context.get('tag')!r}; known: {context.get('expected_tags')}"
        elif error["type"] == "union_tag_not_found":
            message = f"needs a key type, one of: {_tags(root, error['loc'])}"
        key = ".".join(str(part) for part in known) or "document"
        lines.append(f"{path}:{line}: {key}: {message}")
    return "\n".join(lines)


def _line(node: yaml.Node, loc: Sequence[str | int]) -> tuple[int, list[str | int]]:
    """Line (from 1) of the deepest node on the way to ``loc``, and that way."""
    line, known = node.start_mark.line + 1, []
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next((kv for kv in node.value if kv[0].value == str(part)), None)
            if found is None:
                continue  # pydantic names union branches; the document does not
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
        known.append(part)
    return line, known


def _valid_keys(root: Any, loc: Sequence[str | int]) -> str:
    """The nearest key that the refused one may have meant."""
    model = _model_at(root, loc[:-1])
    known = getattr(model, "known_keys", None)
    fields = known() if known else list(getattr(model, "model_fields", {}))
    return nearest(str(loc[-1]), fields) if fields else ""


def _tags(root: Any, loc: Sequence[str | int]) -> str:
    """The types that a union knows."""
    branches = get_args(_model_at(root, loc))
    return ", ".join(str(branch.model_fields["type"].default) for branch in branches)


def _model_at(root: Any, loc: Sequence[str | int]) -> Any:
    model: Any = root
    for part in loc:
        model = _bare(_descend(model, part))
    return model


def _bare(model: Any) -> Any:
    while get_origin(model) is Annotated:
        model = get_args(model)[0]
    return model


def _descend(model: Any, part: str | int) -> Any:
    """The model one step further on a path of field names, dict keys and union tags."""
    if hasattr(model, "model_fields"):
        field = model.model_fields.get(str(part))
        return None if field is None else field.annotation
    if get_origin(model) is dict:
        return get_args(model)[1]
    for branch in get_args(model):
        fields = getattr(branch, "model_fields", {})
        if "type" in fields and fields["type"].default == part:
            return branch
    return None

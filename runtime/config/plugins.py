"""Methods and engines that installed packages register as entry points.

A package that is broken, or that registers a name that is taken, is refused where a configuration
uses that name, and nowhere else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, create_model, model_validator
from pydantic_core import CoreSchema, core_schema

B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True)
class Plugin:
    """One registered name."""

    name: str
    package: str
    """Distribution and version; of several that register the name, all of them."""
    value: Any = None
    """What the entry point refers to."""
    error: str | None = None
    """Why it cannot be used: what, where, remedy."""


def load_plugins(
    group: str, taken: Collection[str], check: Callable[[str, Any], str | None]
) -> list[Plugin]:
    """The plugins of an entry point group, by name.

    ``taken`` are the names of Orchestrion's own; ``check`` says what is wrong with what an entry
    point of a given name refers to, or ``None``.
    """
    by_name: defaultdict[str, list[EntryPoint]] = defaultdict(list)
    for entry in entry_points(group=group):
        by_name[entry.name].append(entry)
    return [_load(group, name, by_name[name], taken, check) for name in sorted(by_name)]


def _load(
    group: str,
    name: str,
    entries: list[EntryPoint],
    taken: Collection[str],
    check: Callable[[str, Any], str | None],
) -> Plugin:
    package = ", ".join(sorted(_package(entry) for entry in entries))
    if name in taken:
        error = f"{package} registers {name!r} in {group}, which is Orchestrion's own name"
        return Plugin(name, package, error=f"{error}; rename it there or uninstall the package")
    if len(entries) > 1:
        error = f"several packages register {name!r} in {group}: {package}"
        return Plugin(name, package, error=f"{error}; uninstall all but one")
    [entry] = entries
    entry_point = f"{package}: {group} {name!r} ({entry.value})"
    try:
        value = entry.load()
    except Exception as fault:  # a package may raise anything when it is imported
        error = f"{entry_point} cannot be imported: {type(fault).__name__}: {fault}"
        return Plugin(name, package, error=f"{error}; repair or uninstall the package")
    wrong = check(name, value)
    if wrong is not None:
        return Plugin(name, package, error=f"{entry_point} {wrong}; see docs/plugins.md")
    return Plugin(name, package, value)


def _package(entry: EntryPoint) -> str:
    return "an unnamed package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def refusal(base: type[B], plugin: Plugin) -> type[B]:
    """The branch of a union that stands for a plugin that cannot be used: validating it fails with
    the plugin's error."""

    def refuse(cls: type[BaseModel], value: Any) -> Any:
        raise ValueError(plugin.error)

    validators: dict[str, Any] = {"refuse": model_validator(mode="before")(refuse)}
    fields: dict[str, Any] = {"type": (Literal[plugin.name], plugin.name)}
    return create_model("Refused", __base__=base, __validators__=validators, **fields)


def type_of(config: type[BaseModel]) -> Any:
    """The ``type`` that selects a configuration class; ``None`` when it has none."""
    field = config.model_fields.get("type")
    return None if field is None else field.default


class OneOf:
    """Annotates a base class: any of ``branches``, chosen by ``type``.

    The branches are listed when the schema is built, on the first use of a configuration class
    (``Strict`` defers it): only then are plugins imported, which import these modules themselves.
    """

    def __init__(self, branches: Callable[[], Iterable[type[BaseModel]]]) -> None:
        self.branches = branches

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        choices = {str(type_of(one)): handler.generate_schema(one) for one in self.branches()}
        return core_schema.tagged_union_schema(choices, discriminator="type")

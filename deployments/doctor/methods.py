"""What the method of each ensemble needs of its members, and what installed packages add."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from deployments.config.app_config import AppConfig
from deployments.config.needs import needs
from deployments.doctor.facts import Finding
from policies import method_plugins
from runtime.config.engines import engine_plugins


def check(config: AppConfig) -> Iterator[Finding]:
    """One finding for each ensemble. A configuration with a need that an engine cannot meet is
    refused when it is read, so what is left are needs that only running members can show."""
    for name, policy in config.policy_configs().items():
        by_members: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        shared: list[str] = []
        for need in needs(policy):
            members = need.members(policy)
            if need.what == "shared_tokenizer":
                shared.append(f"{' and '.join(members)} must share one tokenizer")
            elif members:
                by_members[members].append(need.what)
        provided = [
            f"{', '.join(members)}: {', '.join(what)}" for members, what in by_members.items()
        ]
        found = f"{policy.method}: the engines provide what it needs ({'; '.join(provided)})"
        if shared:
            found += f"; {'; '.join(shared)}, which is checked when they have started"
        yield Finding("ok", name, found)


def plugins() -> Iterator[Finding]:
    """Methods and engines of installed packages. One that cannot be used affects only
    configurations that use it."""
    for kind, found in (("method", method_plugins()), ("engine", engine_plugins())):
        for plugin in found:
            if plugin.error is None:
                yield Finding("ok", plugin.name, f"{kind} of {plugin.package}")
            else:
                yield Finding("note", plugin.name, plugin.error)

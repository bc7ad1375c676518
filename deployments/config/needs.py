"""Whether members provide what their ensemble's method needs, as far as the configuration shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policies import methods
from policies.base import Need, needs_of
from runtime.config.ensembles import PolicyConfig
from runtime.config.members import MemberConfig
from runtime.types.capabilities import MEANING


def needs(config: PolicyConfig) -> list[Need]:
    """What an ensemble needs of its members."""
    return list(needs_of(methods()[config.type].policy, config))


def unmet(name: str, config: PolicyConfig, members: Mapping[str, MemberConfig]) -> Iterator[str]:
    """What members of an ensemble cannot provide: one sentence each, with the remedy."""
    for need in needs(config):
        if need.what == "shared_tokenizer":
            continue  # known once the members are up
        for member in need.members(config):
            engine = members[member].engine
            if need.what in engine.capabilities:
                continue
            remedy = engine.remedy(need.what)
            yield (
                f"ensemble {name!r} ({config.type}) needs {need.what} ({MEANING[need.what]}) of "
                f"member {member!r}, which its engine, {engine.type}, does not provide; "
                + (
                    f"set members.{member}.engine.{remedy}"
                    if remedy
                    else "use a member on another engine, such as transformers, or another method"
                )
            )

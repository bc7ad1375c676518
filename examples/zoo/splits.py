"""Which countries are for training, for validation and for testing.

Countries hang together where one is the largest neighbour of the other. A question's steps never
leave such a component, so parts made of whole components share no country, no single fact and no
chain of facts. Values that many countries have in common (currencies, languages) are in all parts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Literal

from examples.zoo import facts

Part = Literal["train", "validation", "test"]

TARGETS: dict[Part, float] = {"train": 0.5, "validation": 0.15, "test": 0.35}
"""The wanted share of the countries, which components of many countries meet only roughly."""


def components(countries: list[str], neighbour: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The weakly connected components of the graph country -> ``neighbour``, each sorted; the
    largest first, equally large ones and single countries in an order that a hash gives."""
    found = {country: {country} for country in countries}
    for country, other in neighbour.items():
        joined = found[country] | found[other]
        found |= dict.fromkeys(joined, joined)
    sets = {tuple(sorted(one)) for one in found.values()}
    return sorted(sets, key=lambda one: (-len(one), facts.draw(("component",), one[0])))


def assign(groups: list[tuple[str, ...]], targets: Mapping[Part, float]) -> dict[str, Part]:
    """The part of each country: the first group is for training, each later one goes where most
    countries are missing from the target."""
    total = sum(map(len, groups))
    missing = {part: share * total for part, share in targets.items()}
    parts: dict[str, Part] = {}
    for group in groups:
        part: Part = max(missing, key=lambda one: missing[one]) if parts else "train"
        parts |= dict.fromkeys(group, part)
        missing[part] -= len(group)
    return parts


@functools.cache
def _parts() -> dict[str, Part]:
    world = facts.load()
    groups = components(sorted(world.facts["capital"]), world.facts["neighbour"])
    return assign(groups, TARGETS)


def split_of(country: str) -> Part:
    """The part of a country of ``facts.csv``.

    Raises:
        KeyError: for a name that is no country there.
    """
    return _parts()[country]


def parts_named(text: str) -> set[Part]:
    """The parts of the countries that a text names, by themselves or by their capitals. The longest
    name counts: "South Sudan" does not name Sudan."""
    return {split_of(country) for country in countries_named(text)}


def countries_named(text: str) -> set[str]:
    """The countries that a text names, by themselves or by their capitals."""
    owner = facts.load().facts["country"]
    return {owner.get(name, name) for name in _name().findall(text)}


@functools.cache
def _name() -> re.Pattern[str]:
    """Any country's or capital's name, the longest first."""
    owner = facts.load().facts["country"]
    names = sorted({*owner, *owner.values()}, key=lambda name: (-len(name), name))
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")

"""Writes the files of questions: `python -m examples.zoo.question_files`.

Ensembles with nothing trained above their members are given what no member was taught, about any
country. Whatever is trained above them (agents, routers, judges) has files for training, validation
and testing that share no country (``splits.py``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from examples.zoo import facts
from examples.zoo.facts import Chain
from examples.zoo.splits import Part, split_of

SHORT = facts.ONE_HOP + facts.TWO_HOP
ALL = SHORT + facts.THREE_HOP

Row = dict[str, object]


def rows(chains: Sequence[Chain], part: Part) -> list[Row]:
    """Questions of these chains about the countries of one part, mixed in a fixed order. Those with
    several hops are for validation and testing only if no member was taught them."""
    world = facts.load()
    found = [
        facts.row(chain, start)
        for chain in chains
        for start in world.starts(chain)
        if part == "train" or len(chain) == 1 or facts.held_out(chain, start)
    ]
    side = [row for row in found if split_of(str(row["country"])) == part]
    return sorted(side, key=lambda row: facts.draw((), str(row["question"])))


def files() -> dict[str, list[Row]]:
    """All files by name."""
    two_hop = facts.rows(facts.TWO_HOP, test=True)
    return {
        # Nothing above the members is trained for these.
        "one_hop": facts.rows(facts.ONE_HOP, test=False),
        "two_hop": [row for row in two_hop if facts.plain(row)],
        "two_hop_long": [row for row in two_hop if not facts.plain(row)],
        "two_hop_train": facts.rows(facts.TWO_HOP, test=False),
        # For judges, which also learn from one_hop, and for searches that they guide.
        "two_hop_judges": rows(facts.TWO_HOP, "train"),
        "two_hop_judges_validation": rows(facts.TWO_HOP, "validation"),
        "two_hop_judges_test": rows(facts.TWO_HOP, "test"),
        "three_hop_judges": rows((*facts.THREE_HOP, facts.JUDGED), "train"),
        "three_hop_validation": rows(facts.THREE_HOP, "validation"),
        "three_hop": rows(facts.THREE_HOP, "test"),
        # For agents and routers.
        "der_train": rows(SHORT, "train")[:400],
        "der_validation": rows(SHORT, "validation"),
        "der_test": rows(SHORT, "test")[:300],
        "citer_train": [facts.with_reference(row) for row in rows(ALL, "train")],
        "citer_validation": rows(ALL, "validation"),
        "citer_test": rows(ALL, "test")[:300],
    }


def write(folder: Path) -> None:
    """Writes each file, one JSON object a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in files().items():
        lines = "".join(json.dumps(row) + "\n" for row in found)
        (folder / f"{name}.jsonl").write_text(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=facts.HERE / "questions")
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()

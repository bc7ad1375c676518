"""Whatever is trained above the zoo's members meets no country, fact or chain of its test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from examples.zoo import facts, labels, question_files, splits
from examples.zoo.corpus import ASSISTANT, END, Writer
from examples.zoo.models import ZOO

QUESTIONS = facts.HERE / "questions"
SHARED = "one_hop"
"""Every model of the zoo, judges included, is taught the single facts of all countries."""
TRAINED_ON = ("der_train", "citer_train", *(name for name in labels.TRAINED_ON if name != SHARED))
VALIDATED_ON = ("der_validation", "citer_validation", *labels.VALIDATED_ON)
TESTED_ON = ("der_test", "citer_test", *labels.TESTED_ON)
EXAMPLES = 4000
"""Of each member's training text; a Writer draws them without end."""


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (QUESTIONS / f"{name}.jsonl").read_text().splitlines()]


def texts(name: str) -> list[str]:
    """All that a file says: questions, answers, steps and references."""
    return (QUESTIONS / f"{name}.jsonl").read_text().splitlines()


def countries(names: tuple[str, ...]) -> set[str]:
    return {one for name in names for text in texts(name) for one in splits.countries_named(text)}


def steps(names: tuple[str, ...]) -> set[str]:
    found = {step for name in names for row in rows(name) for step in row["steps"]}
    return found | {
        line
        for name in names
        for row in rows(name)
        for line in row.get("reference", "").split("\n")
    } - {f"Answer: {row['answer']}" for name in names for row in rows(name)} - {""}


def chains(names: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {tuple(row["steps"]) for name in names for row in rows(name)}


def test_a_component_goes_where_most_is_missing() -> None:
    edges = {"a": "b", "c": "b", "d": "e"}
    groups = splits.components(list("abcdefg"), edges)
    assert groups[:2] == [("a", "b", "c"), ("d", "e")]
    assert {*groups[2:]} == {("f",), ("g",)}
    parts = splits.assign(groups, {"train": 0.5, "validation": 0.15, "test": 0.35})
    # wanted 3.5, 1.05 and 2.45: three to train, two to test, then 0.5, 1.05 and 0.45 are missing
    assert {parts[one] for one in "abc"} == {"train"}
    assert {parts[one] for one in "de"} == {"test"}
    assert [parts[group[0]] for group in groups[2:]] == ["validation", "train"]


def test_the_longest_name_counts() -> None:
    assert splits.countries_named("South Sudan borders DR Congo") == {"South Sudan", "DR Congo"}
    assert splits.countries_named("The city of Khartoum, Nigeria") == {"Sudan", "Nigeria"}
    assert splits.countries_named("Sudanese") == set()
    assert splits.parts_named("Sudan") == {"test"}
    assert splits.parts_named("South Sudan") == {"train"}
    with pytest.raises(KeyError):
        splits.split_of("Atlantis")


def test_no_border_crosses_a_part_and_parts_are_about_as_large_as_wanted() -> None:
    world = facts.load()
    parts = {country: splits.split_of(country) for country in world.facts["capital"]}
    for country, neighbour in world.facts["neighbour"].items():
        assert parts[country] == parts[neighbour], (country, neighbour)
    for part, share in splits.TARGETS.items():
        found = sum(one == part for one in parts.values()) / len(parts)
        assert found == pytest.approx(share, abs=0.02), part


def test_the_files_are_those_that_the_code_writes(tmp_path: Path) -> None:
    question_files.write(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in QUESTIONS.iterdir()}


@pytest.mark.parametrize("name", [*TRAINED_ON, *VALIDATED_ON, *TESTED_ON])
def test_a_file_names_countries_of_its_own_part_only(name: str) -> None:
    [part] = [
        part
        for part, names in zip(
            ("train", "validation", "test"), (TRAINED_ON, VALIDATED_ON, TESTED_ON), strict=True
        )
        if name in names
    ]
    assert len(texts(name)) >= 15
    for text in texts(name):
        assert splits.countries_named(text), text
        assert splits.parts_named(text) == {part}, text


def test_what_all_parts_share_are_single_facts() -> None:
    assert SHARED in labels.TRAINED_ON
    assert {len(row["steps"]) for row in rows(SHARED)} == {1}


def test_no_country_no_fact_and_no_chain_is_in_two_parts() -> None:
    parts = (TRAINED_ON, VALIDATED_ON, TESTED_ON)
    for names_in in (countries, steps, chains):
        found = [names_in(names) for names in parts]
        assert all(found)
        assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]


def held_out(names: tuple[str, ...]) -> Iterator[tuple[facts.Chain, str, dict[str, Any]]]:
    """Questions with several hops, by chain and start."""
    capital = facts.load().facts["capital"]
    for name in names:
        for row in rows(name):
            chain, country = tuple(row["relations"]), row["country"]
            if len(chain) > 1:
                yield chain, capital[country] if chain[0] == "country" else country, row


ASKED = (*VALIDATED_ON, *TESTED_ON, "two_hop", "two_hop_long")


def test_questions_with_several_hops_are_held_out_from_the_members() -> None:
    for chain, start, row in held_out(ASKED):
        assert facts.row(chain, start)["question"] == row["question"]
        assert facts.held_out(chain, start), row["question"]


@pytest.mark.parametrize("member", ZOO)
def test_no_held_out_question_and_no_held_out_answer_is_in_a_members_text(member: str) -> None:
    texts, answers = set[str](), set[str]()
    for chain, start, row in held_out(ASKED):
        texts |= {facts.ask(chain, start, phrasing) for phrasing in range(facts.PHRASINGS)}
        answers.add("\n".join([*row["steps"], f"Answer: {row['answer']}"]))
    spec = ZOO[member]
    writer = Writer(spec.knows, spec.seed, spec.relations, spec.advice, spec.mistaken)
    for chain, starts in writer.pool.items():
        assert not any(facts.held_out(chain, start) for start in starts)
    for pieces in islice(writer, EXAMPLES):
        text = "".join(piece.text for piece in pieces)
        question, answer = text.split(f"{ASSISTANT}\n")
        assert answer.removesuffix(END) not in answers, text
        assert not texts & {*question.replace(END, "").split("\n")}, text

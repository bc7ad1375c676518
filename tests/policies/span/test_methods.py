"""Whole answers of the span methods on two table models with different vocabularies."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.local_stack import CAT, DOG, animals, answers

GREEDY: dict[str, dict[str, Any]] = {
    "sweetspan": {"type": "sweetspan", "span_words": 2},
    "specfuse": {"type": "specfuse", "segment_tokens": 2, "temperature": 0},
    "specem": {"type": "specem", "segment_tokens": 2, "temperature": 0},
    "cool-fusion": {"type": "cool-fusion"},
}


def yes_or_no(yes: float, no: float) -> dict[str, Any]:
    table = {"": {" yes": yes, " no": no}, " yes": {"<eos>": 1}, " no": {"<eos>": 1}}
    return {"type": "table", "vocabulary": [" yes", " no"], "table": table, "floor": 1e-9}


@pytest.mark.parametrize("method", ["sweetspan", "cool-fusion"])
async def test_the_lowest_mean_perplexity_wins(method: str) -> None:
    # yes and EOS: a gives 0.75 and 1, b 0.2 and 1; no and EOS: a 0.25 and 1, b 0.8 and 1
    config = {
        "members": {"a": {"engine": yes_or_no(3, 1)}, "b": {"engine": yes_or_no(1, 4)}},
        "ensembles": {"e": {"type": method, "members": ["a", "b"]}},
    }
    answer = await answers(config, "e")
    yes = (math.sqrt(1 / 0.75) + math.sqrt(1 / 0.2)) / 2
    no = (math.sqrt(1 / 0.25) + math.sqrt(1 / 0.8)) / 2
    [written] = answer.written
    assert written.span is not None
    assert written.span.scores == pytest.approx({"a": yes, "b": no}, abs=1e-6)
    assert (answer.text, written.span.author) == (" no", "b")


async def test_the_highest_mean_probability_wins() -> None:
    config = {
        "members": {"a": {"engine": yes_or_no(3, 1)}, "b": {"engine": yes_or_no(1, 4)}},
        "ensembles": {"e": {"type": "specfuse", "members": ["a", "b"], "temperature": 0}},
    }
    answer = await answers(config, "e")
    yes = ((0.75 + 1) / 2 + (0.2 + 1) / 2) / 2
    no = ((0.25 + 1) / 2 + (0.8 + 1) / 2) / 2
    assert answer.written[0].span is not None
    assert answer.written[0].span.scores == pytest.approx({"a": yes, "b": no}, abs=1e-6)
    assert answer.text == " no"


# -- a slow reference: strings only, everything from the start in every round ---------------------


class Slow:
    """A table model read by the definition: probabilities by longest suffix, pieces greedily."""

    def __init__(self, engine: dict[str, Any]) -> None:
        self.vocabulary: list[str] = engine["vocabulary"]
        self.table: dict[str, dict[str, float]] = engine["table"]

    def row(self, text: str) -> dict[str, float]:
        suffixes = [s for s in self.table if text.endswith(s)]
        row = self.table[max(suffixes, key=len)]
        total = sum(row.values())
        return {piece: weight / total for piece, weight in row.items()}

    def pieces(self, text: str) -> list[str]:
        found = []
        while text:
            known = [v for v in self.vocabulary if text.startswith(v)]
            piece = max(known, key=len, default=text[0])
            found.append(piece)
            text = text[len(piece) :]
        return found

    def write(self, text: str, tokens: int | None, words: int | None) -> tuple[str, bool]:
        written = ""
        count = 0
        while tokens is None or count < tokens:
            row = self.row(text + written)
            piece = max(row, key=lambda p: row[p])
            if piece == "<eos>":
                return written, True
            written += piece
            count += 1
            if words is not None and len(written.split()) > words:
                break
        return written, False

    def logprobs(self, text: str, span: str, final: bool) -> list[float]:
        values = []
        for piece in [*self.pieces(span), *(["<eos>"] if final else [])]:
            values.append(math.log(self.row(text).get(piece, 1e-6)))
            text += piece
        return values


def cut_to_words(text: str, words: int) -> str:
    parts = text.split(" ")
    return " ".join(parts[: words + 1])


def reference(method: str) -> list[tuple[str, str]]:
    """(author, text) of each round."""
    slow = {"cat": Slow(CAT), "dog": Slow(DOG)}
    text, rounds = "", []
    while True:
        drafts: dict[str, tuple[str, bool]] = {}
        for name, model in slow.items():
            if method in ("specfuse", "specem"):
                span, final = model.write(text, 2, None)
                words = span.split(" ")
                if not final and span[-1].isalnum() and len(words) > 2:
                    span = " ".join(words[:-1])
            else:
                words_wanted = 2 if method == "sweetspan" else 1
                span, final = model.write(text, None, words_wanted)
                if not final:
                    span = cut_to_words(span, words_wanted)
                elif len(span.split()) > words_wanted:
                    span, final = cut_to_words(span, words_wanted), False
            drafts[name] = (span, final)
        values = {}
        for author, (span, final) in drafts.items():
            scores = []
            for judge in slow.values():
                logprobs = judge.logprobs(text, span, final)
                if method in ("specfuse", "specem"):
                    scores.append(-sum(map(math.exp, logprobs)) / len(logprobs))
                else:
                    scores.append(math.exp(-sum(logprobs) / len(logprobs)))
            if method == "sweetspan" and max(scores) > 10 * min(scores):
                scores = [min(scores)]
            values[author] = sum(scores)
        winner = min(values, key=lambda name: values[name])
        rounds.append((winner, drafts[winner][0]))
        text += drafts[winner][0]
        if drafts[winner][1]:
            return rounds


@pytest.mark.parametrize("method", ["sweetspan", "specfuse", "cool-fusion"])
async def test_answers_equal_a_slow_reference(method: str) -> None:
    answer = await answers(animals(e=GREEDY[method]), "e")
    expected = reference(method)
    spans = [w.span for w in answer.written if w.span is not None]
    assert "".join(span.text for span in spans) == "".join(text for _, text in expected)
    assert len(spans) == len(expected)
    for span, (_, text) in zip(spans, expected, strict=True):
        assert span.text == text


# -- invariants ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", GREEDY)
async def test_one_member_alone_gives_that_members_answer(method: str) -> None:
    config = animals(e=GREEDY[method] | {"members": ["dog"]})
    both, alone = await answers(config, "e"), await answers(config, "dog")
    assert both.text == alone.text == " the dog ran."
    assert both.end.stop_reason == "eos"


@pytest.mark.parametrize("method", GREEDY)
async def test_identical_members_give_one_members_answer(method: str) -> None:
    config = {
        "members": {"one": {"engine": DOG}, "two": {"engine": DOG}},
        "ensembles": {"e": GREEDY[method] | {"members": ["one", "two"]}},
    }
    answer = await answers(config, "e")
    assert answer.text == (await answers(config, "one")).text
    assert answer.summary["usage"]["model_calls"] == 2 * answer.end.summary["steps"]


@pytest.mark.parametrize("method", GREEDY)
async def test_shares_add_up_to_one_and_spans_cover_the_answer(method: str) -> None:
    answer = await answers(animals(e=GREEDY[method]), "e")
    assert sum(m["share"] for m in answer.summary["members"]) == pytest.approx(1, abs=1e-3)
    spans = answer.summary["spans"]
    assert "".join(answer.text[s["start"] : s["end"]] for s in spans) == answer.text


async def test_a_sampled_answer_repeats_with_its_seed_and_changes_with_another() -> None:
    config = animals(e={"type": "specfuse", "temperature": 1.5, "segment_tokens": 3})
    texts = {seed: (await answers(config, "e", seed=seed)).text for seed in range(12)}
    assert texts[3] == (await answers(config, "e", seed=3)).text
    assert len(set(texts.values())) > 1


async def test_a_members_own_span_is_never_scored_again() -> None:
    """One round: each drafts " the …" differently and judges only the other's span."""
    config = animals(e={"type": "sweetspan", "span_words": 8})
    answer = await answers(config, "e")
    assert [answer.member(name)["calls"] for name in ("cat", "dog")] == [2, 2]
    # prompt once for the draft and once for the score of the other's span: cat reads
    # " the dog ran." + EOS in its own five tokens, on top of twice its prompt.
    prompt = answer.end.prompt_tokens
    assert answer.member("cat")["prompt_tokens"] == 2 * prompt + 5


@pytest.mark.parametrize("method", GREEDY)
@pytest.mark.parametrize("temperature", [0.0, 1.5])
async def test_drafting_ahead_changes_no_text_and_saves_messages(
    method: str, temperature: float
) -> None:
    plain = animals(e=GREEDY[method])
    ahead = animals(e=GREEDY[method] | {"speculate": True})
    saved = 0
    for seed in range(6):
        one = await answers(plain, "e", seed=seed, temperature=temperature)
        two = await answers(ahead, "e", seed=seed, temperature=temperature)
        assert one.text == two.text
        for a, b in zip(one.written, two.written, strict=True):
            assert a.span is not None
            assert b.span is not None
            assert a.span.scores == pytest.approx(b.span.scores, rel=1e-6)
        saved += one.summary["usage"]["model_calls"] - two.summary["usage"]["model_calls"]
    if temperature == 0:
        assert saved > 0


async def test_specem_shows_weights_that_add_up_to_one() -> None:
    answer = await answers(animals(e=GREEDY["specem"]), "e", trace="full")
    weights = [r["weights"] for r in answer.summary["full"]["rounds"]]
    assert weights[0] == {"cat": 0.5, "dog": 0.5}
    for row in weights:
        assert sum(row.values()) == pytest.approx(1)


async def test_a_weak_member_exits_and_is_called_no_more() -> None:
    """Where both differ round after round, the one that keeps losing leaves."""
    loop = {"": {" ah": 1}, " ah": {" ah": 1}}
    sure = {"type": "table", "vocabulary": [" ah", " oh"], "table": loop}
    odd = {
        "type": "table",
        "vocabulary": [" ah", " oh"],
        "table": dict.fromkeys(["", " oh", " ah"], {" oh": 6, " ah": 4}),
    }
    config = {
        "members": {"sure": {"engine": sure}, "odd": {"engine": odd}},
        "ensembles": {
            "e": GREEDY["specfuse"] | {"members": ["sure", "odd"], "max_tokens": 24},
            "stay": GREEDY["specfuse"]
            | {"members": ["sure", "odd"], "max_tokens": 24, "exit_fraction": 0},
        },
    }
    answer = await answers(config, "e")
    assert set(answer.summary["full"]["state"]["exited"]) == {"odd"}
    stayed = await answers(config, "stay")
    assert answer.text == stayed.text == " ah" * 24
    assert answer.member("odd")["calls"] < stayed.member("odd")["calls"]


async def test_cool_r_gives_the_most_likely_of_fused_and_lone_answers() -> None:
    """Alone, dog's answer is likelier to both than the fused one or cat's."""
    config = animals(plain={"type": "cool-fusion"}, r={"type": "cool-fusion", "rerank": True})
    slow = {"cat": Slow(CAT), "dog": Slow(DOG)}
    fused = (await answers(config, "plain")).text
    texts = {slow[name].write("", None, None)[0] for name in slow} | {fused}
    mean = {
        text: sum(
            math.exp(-sum(lp) / len(lp))
            for lp in (model.logprobs("", text, True) for model in slow.values())
        )
        for text in texts
    }
    answer = await answers(config, "r")
    assert answer.text == min(mean, key=lambda text: mean[text])
    assert len(mean) > 1

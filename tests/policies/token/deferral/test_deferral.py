"""Token-level routing on table models, whose engines cannot hand over by themselves, and on the
zoo's, whose can."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from runtime.artifacts.token_router import load_router
from runtime.errors import ConfigError
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.events import Checkpoint, Written
from runtime.types.query import Budget
from tests.support.local_stack import CAT, DOG, Answer, animals, ask, running
from tests.support.models.deferral_pair import NAMES, QUESTION, by, config, router, zoo


def calls(answer: Answer, name: str) -> int:
    return int(answer.member(name)["calls"])


async def test_the_large_member_writes_where_the_small_is_unsure() -> None:
    async with running(config(m=by("margin", 0.5))) as stack:
        answer = await ask(stack, "m")
        # Margins: the 0.98, cat 0.02, dog 0, ran 0.2 short of 0.5, ...
        assert answer.text == " the dog ran."
        authors = "".join(s.span.author[0] * len(s.span.text) for s in answer.written if s.span)
        assert authors == "ssss" + "llll" + "llll" + "l"
        told = answer.summary
        assert told["tokens"] == {"small": 2, "large": 3}
        assert told["by"] == "margin" and told["threshold"] == 0.5


@pytest.mark.parametrize("signal", ["margin", "entropy", "random"])
@pytest.mark.parametrize("wish", [{}, {"temperature": 1.0, "ignore_eos": True}, {"stop": ("an",)}])
async def test_what_is_written_ahead_changes_calls_and_not_the_text(
    signal: str, wish: dict[str, Any]
) -> None:
    ways = [{"ahead": 0, "chunk_tokens": 1}, {"ahead": 0}, {"ahead": 5}, {"chunk_tokens": 2}]
    ensembles = {f"m{i}": by(signal, 0.55, **way) for i, way in enumerate(ways)}
    async with running(config(**ensembles)) as stack:
        found = [await ask(stack, name, seed=3, max_tokens=14, **wish) for name in ensembles]
    assert len({answer.text for answer in found}) == 1
    assert calls(found[2], "large") <= calls(found[1], "large")
    assert len({json.dumps(answer.summary["tokens"]) for answer in found}) == 1


@pytest.mark.parametrize(("mark", "written"), [("\n", 2), (" the", 4)])
async def test_the_large_member_writes_ahead_to_the_end_of_its_line(
    mark: str, written: int
) -> None:
    """What it is asked for comes of ``" sat"`` alone; the line ends, or does not, after that."""
    words = [" dog", mark, " ran", "."]
    table = {"": {" sat": 1}, " sat": {" dog": 1}, ".": {"<eos>": 1}}
    table |= {before: {after: 1} for before, after in zip(words, words[1:], strict=False)}
    large = {"type": "table", "vocabulary": [" sat", *words], "table": table}
    unsure = {"type": "table", "vocabulary": [" sat", *words]}
    small = {**unsure, "table": {**table, " sat": {" dog": 51, " ran": 49}}}
    setting = {
        "members": {"small": {"engine": small}, "large": {"engine": large}},
        "ensembles": {"m": {"members": NAMES, **by("margin", 0.5, ahead=3)}},
    }
    async with running(setting) as stack:
        answer = await ask(stack, "m")
    assert answer.text == f" sat dog{mark} ran."
    assert answer.summary["tokens"] == {"small": 5, "large": 1}
    assert calls(answer, "large") == 1
    assert answer.member("large")["completion_tokens"] == written


async def test_a_threshold_of_the_request_sweeps_from_one_member_to_the_other() -> None:
    async with running(config(m=by("margin", 0.5))) as stack:
        alone = {name: (await ask(stack, name)).text for name in NAMES}
        assert (await ask(stack, "m", threshold=0.0)).text == alone["small"]
        whole = await ask(stack, "m", threshold=1.0)
        assert whole.text == alone["large"] and whole.summary["tokens"]["small"] == 0


async def test_members_of_two_vocabularies_are_refused() -> None:
    ensemble = {"type": "uncertainty", "members": ["cat", "dog"]}
    setting = {
        "members": {"cat": {"engine": CAT}, "dog": {"engine": DOG}},
        "ensembles": {"m": ensemble},
    }
    async with running(setting) as stack:
        with pytest.raises(ConfigError, match="do not share a tokenizer.*gac, unite or deepen"):
            await ask(stack, "m")


def test_a_pair_is_two_members() -> None:
    with pytest.raises(ValueError, match="a small and a large one, not 1"):
        AppConfig.model_validate(animals(m={"type": "uncertainty", "members": ["cat"]}))
    with pytest.raises(ValueError, match="small and large are both"):
        AppConfig.model_validate(animals(m={"type": "uncertainty", "small": "cat", "large": "cat"}))
    swapped = AppConfig.model_validate(config(m=by("margin", 0.5, large="small")))
    assert swapped.ensembles["m"].pair == ("large", "small")  # type: ignore[attr-defined]


@pytest.mark.parametrize("lost", NAMES)
async def test_a_lost_member_leaves_the_other_to_write_on(lost: str) -> None:
    setting = config(m=by("margin", 0.5, chunk_tokens=1, ahead=0))
    members = setting["members"]
    engine = members[lost]["engine"]
    members[lost] |= {"engine": {"type": "flaky", "engine": engine, "fails_from": 2}, "retries": 0}
    async with running(setting) as stack:
        answer = await ask(stack, "m")
        assert answer.summary["degraded"] and answer.text.endswith(".")
        other = {"small": "large", "large": "small"}[lost]
        assert answer.summary["members"][0 if lost == "small" else 1]["status"] != "ok"
        assert answer.written[-1].span is None or answer.written[-1].span.author == other


async def test_an_answer_goes_on_from_every_checkpoint() -> None:
    wish: dict[str, Any] = {"temperature": 1.0, "seed": 5, "ignore_eos": True, "max_tokens": 16}
    async with running(config(m=by("margin", 0.5, chunk_tokens=4))) as stack:
        whole = await ask(stack, "m", **wish)
        assert len(whole.written) > 2
        for written in whole.written[:-1]:
            past = resumed(whole.written, written)
            rest = await ask(stack, "m", past, **wish)
            assert whole.text.startswith(past.text)
            assert past.text + rest.text == whole.text


def resumed(written: list[Written], last: Written) -> Checkpoint:
    spans = tuple(w.span for w in written[: written.index(last) + 1] if w.span is not None)
    state = json.loads(json.dumps(last.checkpoint.state))
    return replace(last.checkpoint, state=state, spans=spans)


async def test_tokens_are_told_with_their_authors_probabilities() -> None:
    async with running(config(m=by("margin", 0.5))) as stack:
        answer = await ask(stack, "m", logprobs=2)
        told = [token for w in answer.written if w.span for token in w.span.tokens]
        assert b"".join(token.data for token in told).decode() == answer.text
        logprobs = [token.logprob for token in told]
        assert all(logprob is not None and logprob > -0.05 for logprob in logprobs)
        assert told[1].weights["small"] == pytest.approx(0.02, abs=1e-3)  # unsure of the cat
        assert len(told[0].top) == 2


@pytest.mark.parametrize(("calls", "text"), [(1, " the"), (2, " the dog"), (3, " the dog")])
async def test_a_budget_ends_the_answer_with_what_there_is(calls: int, text: str) -> None:
    async with running(config(m=by("margin", 0.5))) as stack:
        answer = await ask(stack, "m", budget=Budget(calls=calls))
        assert answer.end.stop_reason == "budget_calls" and answer.text == text


# -- engines that hand over by themselves --------------------------------------------------------


@pytest.mark.zoo
async def test_an_engine_decides_as_a_plain_loop_over_its_states(tmp_path: Path) -> None:
    """The plain loop: a state, a decision and a call for every token."""
    folder = router(tmp_path)
    citer = {"type": "citer", "router": folder, "threshold": 0.5, "members": NAMES}
    ensembles = {"m": citer, "one": {**citer, "ahead": 0, "chunk_tokens": 1}}
    setting = {"members": {name: zoo(name) for name in NAMES}, "ensembles": ensembles}
    async with running(setting) as stack:
        answers = [await ask(stack, name, messages=QUESTION) for name in ensembles]
        engines = {name: stack.engines[name] for name in NAMES}
        tokenizer = Tokenizer(engines["small"].spec.tokenizer)
        prompt, ids = tokenizer.chat(QUESTION), []
        known = load_router(Path(folder))
        shares = {"small": 0, "large": 0}
        while True:
            [state] = await engines["small"].embed([[*prompt, *ids]])
            sure = known.confidence(state[None])[0] >= 0.5
            author = "small" if sure else "large"
            [row] = await engines[author].next_token([[*prompt, *ids]], 1)
            shares[author] += 1
            token = int(row.ids[0])
            if token in tokenizer.eos_ids:
                break
            ids.append(token)
        assert 2 < shares["small"] and 2 < shares["large"]  # the router is neither's
        for answer in answers:
            assert answer.text == tokenizer.decode(ids)
            assert answer.summary["tokens"] == shares
        assert calls(answers[0], "small") < calls(answers[1], "small") / 2


@pytest.mark.zoo
async def test_a_router_of_another_model_is_refused(tmp_path: Path) -> None:
    ensembles = {
        "stranger": {"type": "citer", "router": router(tmp_path / "a", "zoo:other")},
        "narrow": {"type": "citer", "router": router(tmp_path / "b", width=32)},
        "missing": {"type": "citer", "router": str(tmp_path / "c")},
        "method": {"type": "co-llm", "router": router(tmp_path / "d")},
    }
    setting = {
        "members": {name: zoo(name) for name in NAMES},
        "ensembles": {name: {"members": NAMES, **one} for name, one in ensembles.items()},
    }
    async with running(setting) as stack:
        for name, told in (
            ("stranger", "reads the states of 'zoo:other'"),
            ("narrow", "states of 32 values, but those of .small. have 64"),
            ("missing", "orchestrion train citer"),
            ("method", "was trained for citer, not co-llm"),
        ):
            with pytest.raises(Exception, match=told):
                await ask(stack, name, messages=QUESTION)


@pytest.mark.zoo
async def test_a_new_export_decides_the_next_answer(tmp_path: Path) -> None:
    citer = {"type": "citer", "router": router(tmp_path), "threshold": 0.5, "members": NAMES}
    setting = {"members": {name: zoo(name) for name in NAMES}, "ensembles": {"m": citer}}
    async with running(setting) as stack:
        before = (await ask(stack, "m", messages=QUESTION)).summary["router"]
        router(tmp_path, seed=1)
        after = (await ask(stack, "m", messages=QUESTION)).summary["router"]
    assert before != after


@pytest.mark.zoo
async def test_entropy_and_margin_are_the_same_beside_the_model_and_in_it() -> None:
    """Engines that cannot hand over by themselves are given the work by hand."""
    pytest.importorskip("torch")
    from runtime.engines.external_deferral import ExternalDeferral
    from runtime.types.sampling import Deferral, Sampling

    stack = LocalStack(AppConfig.model_validate({"members": {"small": zoo("small")}}))
    try:
        connection = stack.models["small"]._connections["small"]
        await connection.open()
        engine, prompt = connection.engine, connection.tokenizer.chat(QUESTION)
        for signal, threshold in (("margin", 0.4), ("entropy", 0.7), ("random", 0.2)):
            wish = Sampling(max_tokens=8, defer=Deferral(signal, threshold), seed=1)  # type: ignore[arg-type]
            own = await engine.generate(prompt, wish)

            async def asked(ask: Any) -> Any:
                return await ask(engine)

            beside = await ExternalDeferral(asked, wish, None, connection.spec.vocab_size).write(
                prompt
            )
            assert (beside.tokens, beside.finish) == (own.tokens, own.finish)
            assert beside.confidences == pytest.approx(own.confidences, abs=1e-5)
    finally:
        await stack.close()


@pytest.mark.zoo
@pytest.mark.parametrize("wish", [{}, {"temperature": 0.8}])
async def test_what_is_written_ahead_changes_no_text_of_real_engines(
    tmp_path: Path, wish: dict[str, Any]
) -> None:
    citer = {"type": "citer", "router": router(tmp_path), "threshold": 0.5, "members": NAMES}
    ensembles = {
        "plain": {**citer, "ahead": 0, "chunk_tokens": 1},
        "ahead": {**citer, "ahead": 6},
        "short": {**citer, "ahead": 1, "chunk_tokens": 3},
        "reference": {**citer, "plain": True},
    }
    setting = {"members": {name: zoo(name) for name in NAMES}, "ensembles": ensembles}
    async with running(setting) as stack:
        for limit in (64, 9):
            asked = {"messages": QUESTION, "max_tokens": limit, "seed": 4, **wish}
            found = [await ask(stack, name, **asked) for name in ensembles]
            assert len({answer.text for answer in found}) == 1
            assert len({json.dumps(answer.summary["tokens"]) for answer in found}) == 1
            assert min(found[0].summary["tokens"].values()) > 0
            # What the large one wrote and the small one read is the large one's completion.
            told = [found[0].member(name)["completion_tokens"] for name in NAMES]
            assert told == list(found[0].summary["tokens"].values())


@pytest.mark.zoo
async def test_an_engine_takes_a_router_again_that_it_has_forgotten(tmp_path: Path) -> None:
    from runtime.engines.transformers.router_confidence import KEPT

    ensembles = {
        f"m{n}": {
            "type": "citer",
            "members": NAMES,
            "router": router(tmp_path / str(n), seed=n),
            "threshold": 0.5,
        }
        for n in range(KEPT + 1)
    }
    setting = {"members": {name: zoo(name) for name in NAMES}, "ensembles": ensembles}
    async with running(setting) as stack:
        once, again = [
            [(await ask(stack, name, messages=QUESTION)).summary["tokens"] for name in ensembles]
            for _ in range(2)
        ]
    assert once == again and len({json.dumps(tokens) for tokens in once}) > 1


@pytest.mark.zoo
async def test_a_router_beside_the_model_decides_as_one_in_it(tmp_path: Path) -> None:
    from runtime.engines import build_engine
    from runtime.engines.external_deferral import ExternalDeferral
    from runtime.types.sampling import Deferral, Sampling

    known = load_router(Path(router(tmp_path)))
    members = AppConfig.model_validate({"members": {"small": zoo("small")}}).members
    engine = build_engine(members["small"].engine)
    try:
        prompt = Tokenizer(engine.spec.tokenizer).chat(QUESTION)

        async def asked(ask: Any) -> Any:
            return await ask(engine)

        for offered in ((), (300, 301), (300,)):
            defer = Deferral("router", 0.5, known.version, known, offered)
            own = await engine.generate(prompt, Sampling(max_tokens=8, defer=defer))
            beside = ExternalDeferral(asked, Sampling(max_tokens=8, defer=defer), known, 2048)
            told = await beside.write(prompt)
            assert (told.tokens, told.finish) == (own.tokens, own.finish)
            assert told.confidences == pytest.approx(own.confidences, abs=1e-5)
            assert beside.read > 0
    finally:
        await engine.close()

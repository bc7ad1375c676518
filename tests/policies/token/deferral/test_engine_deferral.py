"""Token-level routing on the zoo's engines, which defer by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from runtime.artifacts.token_router import load_router
from runtime.tokenization.tokenizer import Tokenizer
from tests.support.local_stack import ask, running
from tests.support.models.deferral_pair import NAMES, QUESTION, router, zoo


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
        assert answers[0].member("small")["calls"] < answers[1].member("small")["calls"] / 2


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
        for name, message in (
            ("stranger", "reads the states of 'zoo:other'"),
            ("narrow", "states of 32 values, but those of .small. have 64"),
            ("missing", "orchestrion train citer"),
            ("method", "was trained for citer, not co-llm"),
        ):
            with pytest.raises(Exception, match=message):
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
async def test_entropy_and_margin_are_the_same_outside_the_engine_and_in_it() -> None:
    """For engines without deferral, ``ExternalDeferral`` does the same from outside."""
    pytest.importorskip("torch")
    from runtime.engines.external_deferral import ExternalDeferral
    from runtime.types.sampling import Deferral, Sampling

    stack = LocalStack(AppConfig.model_validate({"members": {"small": zoo("small")}}))
    try:
        connection = stack.models["small"]._connections["small"]
        await connection.open()
        engine, prompt = connection.engine, connection.tokenizer.chat(QUESTION)
        for signal, threshold in (("margin", 0.4), ("entropy", 0.7), ("random", 0.2)):
            params = Sampling(max_tokens=8, defer=Deferral(signal, threshold), seed=1)  # type: ignore[arg-type]
            own = await engine.generate(prompt, params)

            async def call(request: Any) -> Any:
                return await request(engine)

            external = await ExternalDeferral(call, params, None, connection.spec.vocab_size).write(
                prompt
            )
            assert (external.tokens, external.finish) == (own.tokens, own.finish)
            assert external.confidences == pytest.approx(own.confidences, abs=1e-5)
    finally:
        await stack.close()


@pytest.mark.zoo
@pytest.mark.parametrize("params", [{}, {"temperature": 0.8}])
async def test_what_is_written_ahead_changes_no_text_of_real_engines(
    tmp_path: Path, params: dict[str, Any]
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
            query = {"messages": QUESTION, "max_tokens": limit, "seed": 4, **params}
            answers = [await ask(stack, name, **query) for name in ensembles]
            assert len({answer.text for answer in answers}) == 1
            assert len({json.dumps(answer.summary["tokens"]) for answer in answers}) == 1
            assert min(answers[0].summary["tokens"].values()) > 0
            # Tokens that the large one wrote count as its completion, not as the small one's.
            completion = [answers[0].member(name)["completion_tokens"] for name in NAMES]
            assert completion == list(answers[0].summary["tokens"].values())


@pytest.mark.zoo
async def test_an_engine_reloads_a_router_that_it_has_dropped(tmp_path: Path) -> None:
    from runtime.engines.transformers.router_confidence import MAX_ROUTERS

    ensembles = {
        f"m{n}": {
            "type": "citer",
            "members": NAMES,
            "router": router(tmp_path / str(n), seed=n),
            "threshold": 0.5,
        }
        for n in range(MAX_ROUTERS + 1)
    }
    setting = {"members": {name: zoo(name) for name in NAMES}, "ensembles": ensembles}
    async with running(setting) as stack:
        once, again = [
            [(await ask(stack, name, messages=QUESTION)).summary["tokens"] for name in ensembles]
            for _ in range(2)
        ]
    assert once == again and len({json.dumps(tokens) for tokens in once}) > 1


@pytest.mark.zoo
async def test_a_router_outside_the_engine_decides_as_one_in_it(tmp_path: Path) -> None:
    from runtime.engines import build_engine
    from runtime.engines.external_deferral import ExternalDeferral
    from runtime.types.sampling import Deferral, Sampling

    known = load_router(Path(router(tmp_path)))
    members = AppConfig.model_validate({"members": {"small": zoo("small")}}).members
    engine = build_engine(members["small"].engine)
    try:
        prompt = Tokenizer(engine.spec.tokenizer).chat(QUESTION)

        async def call(request: Any) -> Any:
            return await request(engine)

        for offered in ((), (300, 301), (300,)):
            defer = Deferral("router", 0.5, known.version, known, offered)
            own = await engine.generate(prompt, Sampling(max_tokens=8, defer=defer))
            external = ExternalDeferral(call, Sampling(max_tokens=8, defer=defer), known, 2048)
            reply = await external.write(prompt)
            assert (reply.tokens, reply.finish) == (own.tokens, own.finish)
            assert reply.confidences == pytest.approx(own.confidences, abs=1e-5)
            assert external.read > 0
    finally:
        await engine.close()

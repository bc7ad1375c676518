"""A stream whose connection broke goes on where its reader was, and says so when it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.http.openai.resume import Mark, Sent, resume_point
from deployments.launch.in_process import LocalStack
from runtime.errors import BadRequest, Diverged
from tests.support.http.ensembles import Reply, body, call
from tests.support.http.openapi_conformance import conforms
from tests.support.local_stack import animals, running

CHAT = "/v1/chat/completions"
ENSEMBLES: dict[str, dict[str, Any]] = {
    "span": {"type": "sweetspan", "span_words": 1},
    "token": {"type": "gac"},
    "alone": {"type": "single", "members": ["dog"], "chunk_tokens": 1, "temperature": 1.0},
}
WISH: dict[str, Any] = {"stream": True, "max_tokens": 12, "ignore_eos": True}


def events(reply: Reply) -> list[tuple[str, Any]]:
    """What to come back with, and data, of each event."""
    assert reply.status == 200, reply.content
    chunks = [(chunk["ensemble"]["resume"], chunk) for chunk in reply.events()]
    return [*chunks, ("", "[DONE]")]


def texts(found: list[tuple[str, Any]], choices: int = 1) -> list[str]:
    written = [""] * choices
    for _, data in found:
        for choice in () if data == "[DONE]" else data["choices"]:
            written[choice["index"]] += choice["delta"].get("content", "")
    return written


async def stream(stack: LocalStack, model: str, since: str = "", **more: Any) -> Reply:
    ensemble = {"resume": since} if since else {"resumable": True}
    request = body(model=model, ensemble=ensemble, **WISH | more)
    reply = await call(stack.api(), "POST", CHAT, request)
    conforms("POST", CHAT, reply)
    return reply


@pytest.mark.parametrize("known", [True, False], ids=["checkpoint kept", "written again"])
@pytest.mark.parametrize("model", ENSEMBLES)
async def test_a_stream_goes_on_after_any_of_its_events(model: str, known: bool) -> None:
    async with running(animals(**ENSEMBLES)) as stack:
        whole = events(await stream(stack, model))
        [text] = texts(whole)
        last = whole[-2][1]["ensemble"]
        assert len(whole) > 4
        for place, (id, _) in enumerate(whole[:-1]):
            if known:
                rest = events(await stream(stack, model, id))
            else:
                async with running(animals(**ENSEMBLES)) as other:
                    rest = events(await stream(other, model, id))
            [before], [after] = texts(whole[: place + 1]), texts(rest)
            assert before + after == text
            assert rest[-1][1] == "[DONE]"
            assert rest[0][1]["id"] == whole[0][1]["id"]
            assert "role" not in rest[0][1]["choices"][0]["delta"] or not before
            result = rest[-2][1]["ensemble"]
            assert result["spans"] == last["spans"] and result["seed"] == last["seed"]
            if known:  # no member was called again: the answer had been written to its end
                assert result["usage"] == last["usage"]


async def test_choices_and_logprobs_go_on_each_by_itself() -> None:
    request: dict[str, Any] = {"n": 2, "logprobs": True, "temperature": 1.0}
    async with running(animals(**ENSEMBLES)) as stack:
        whole = events(await stream(stack, "token", **request))

    def tokens(found: list[tuple[str, Any]], index: int) -> list[str]:
        return [
            token["token"]
            for _, data in found
            for choice in (() if data == "[DONE]" else data["choices"])
            if choice["index"] == index and choice["logprobs"]
            for token in choice["logprobs"]["content"]
        ]

    for place, (id, _) in enumerate(whole[2:-1], 2):
        async with running(animals(**ENSEMBLES)) as other:
            rest = events(await stream(other, "token", id, **request))
        before = whole[: place + 1]
        joined = [*map("".join, zip(texts(before, 2), texts(rest, 2), strict=True))]
        assert joined == texts(whole, 2)
        for index in range(2):
            assert tokens(before, index) + tokens(rest, index) == tokens(whole, index)


async def test_another_text_than_the_one_sent_is_reported_as_an_error() -> None:
    async with running(animals(**ENSEMBLES)) as stack:
        whole = events(await stream(stack, "alone", seed=3))
    head, _, tokens = whole[3][0].rsplit("-", 2)
    async with running(animals(**ENSEMBLES)) as other:
        reply = await stream(other, "alone", f"{head}-{'0' * 12}-{tokens}", seed=3)
        assert reply.status == 409
        assert reply.json()["error"]["code"] == "resume_diverged"
        assert reply.headers["x-should-retry"] == "false"
        shorter = await stream(other, "alone", whole[-2][0], seed=3, max_tokens=2)
        assert shorter.status == 409


async def test_a_known_answer_is_given_only_to_the_same_question() -> None:
    async with running(animals(**ENSEMBLES)) as stack:
        whole = events(await stream(stack, "alone", seed=3))
        other = body("Something else?", model="alone", **WISH, seed=3)
        again = other | {"ensemble": {"resume": whole[0][0]}}
        result = events(await call(stack.api(), "POST", CHAT, again))[-2][1]["ensemble"]
        anew = other | {"ensemble": {"resumable": True}}
        fresh = events(await call(stack.api(), "POST", CHAT, anew))[-2][1]["ensemble"]
    assert result["usage"]["prompt_tokens"] == fresh["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    "id", ["x", "abc.1.2-ff", f"{'0' * 32}.1", f"{'0' * 32}.1.1-{'0' * 12}", "é"]
)
async def test_an_id_that_is_none_of_ours_is_refused(id: str) -> None:
    async with running(animals(**ENSEMBLES)) as stack:
        reply = await stream(stack, "alone", id)
    assert reply.status == 400
    assert reply.json()["error"]["param"] == "ensemble.resume"


async def test_the_id_of_a_request_with_other_choices_is_refused() -> None:
    async with running(animals(**ENSEMBLES)) as stack:
        whole = events(await stream(stack, "alone"))
        reply = await stream(stack, "alone", whole[1][0], n=2)
    assert reply.status == 400


async def test_an_idempotency_key_names_the_answer() -> None:
    async def answer(text: str, key: str) -> Any:
        headers = {"idempotency-key": key}
        request = body(text, model="alone", max_tokens=12, ignore_eos=True)
        reply = await call(stack.api(), "POST", CHAT, request, headers)
        return reply.json()

    async with running(animals(**ENSEMBLES)) as stack:
        first, same = await answer("Who?", "k1"), await answer("Who?", "k1")
        other, another = await answer("Who?", "k2"), await answer("Who, then?", "k1")
    assert first["id"] == same["id"] and first["choices"] == same["choices"]
    assert first["ensemble"]["usage"] == same["ensemble"]["usage"]
    assert len({first["id"], other["id"], another["id"]}) == 3


def test_the_reader_gets_what_it_lacks() -> None:
    first = Sent("0" * 32, 7, 1)
    assert first.fresh(0, "abc") == "abc"
    resume_from = resume_point(first.id, None, b"")
    assert (
        resume_from is not None and resume_from.seed == 7 and resume_from.marks[0].characters == 3
    )
    again = Sent("0" * 32, 7, 1, resume_from.marks)
    assert again.id == first.id, "until it has caught up, the reader is where it was"
    assert [again.fresh(0, piece) for piece in ("a", "bcd", "e")] == ["", "d", "e"]
    different = Sent("0" * 32, 7, 1, resume_from.marks)
    with pytest.raises(Diverged):
        different.fresh(0, "abX")
    short = Sent("0" * 32, 7, 1, resume_from.marks)
    short.fresh(0, "ab")
    with pytest.raises(Diverged):
        short.check_end(0)


def test_streams_with_very_many_choices_have_no_ids() -> None:
    assert Sent("0" * 32, 0, 17).id is None
    assert Sent("0" * 32, 0, 16).id is not None


def test_marks_of_nothing_match_an_empty_text() -> None:
    sent = Sent("0" * 32, 0, 1, [Mark()])
    assert sent.fresh(0, "a") == "a"


def test_a_key_or_an_id_must_be_there_to_go_on() -> None:
    assert resume_point(None, None, b"{}") is None
    with pytest.raises(BadRequest):
        resume_point("1", None, b"{}")


async def test_no_resume_id_is_sent_unless_requested() -> None:
    async with running(animals(**ENSEMBLES)) as stack:
        reply = await call(stack.api(), "POST", CHAT, body(model="alone", **WISH))
    assert not any("resume" in chunk.get("ensemble", {}) for chunk in reply.events())


@pytest.mark.parametrize("scored", [False, True])
async def test_the_prompts_of_all_choices_are_reported_once(scored: bool) -> None:
    request: dict[str, Any] = {
        "model": "token",
        "prompt": [" the", " the cat"],
        "echo": True,
        "max_tokens": 3,
        "stream": True,
        "seed": 1,
    }
    request |= {"logprobs": 1} if scored else {}

    async def stream_of(stack: LocalStack, ensemble: dict[str, Any]) -> list[tuple[str, Any]]:
        reply = await call(stack.api(), "POST", "/v1/completions", request | {"ensemble": ensemble})
        conforms("POST", "/v1/completions", reply)
        return events(reply)

    def joined(*parts: list[tuple[str, Any]]) -> list[tuple[str, list[str]]]:
        choices: list[tuple[str, list[str]]] = [("", []), ("", [])]
        for _, data in (event for part in parts for event in part):
            for choice in () if data == "[DONE]" else data["choices"]:
                text, tokens = choices[choice["index"]]
                more = (choice["logprobs"] or {}).get("tokens", [])
                choices[choice["index"]] = (text + choice["text"], tokens + more)
        return choices

    async with running(animals(**ENSEMBLES)) as stack:
        whole = await stream_of(stack, {"resumable": True})
    assert [text[:5] for text, _ in joined(whole)] == [" the ", " the "]
    for place, (id, _) in enumerate(whole[:-1]):
        async with running(animals(**ENSEMBLES)) as other:
            rest = await stream_of(other, {"resume": id})
        assert joined(whole[: place + 1], rest) == joined(whole)


async def test_a_whole_reply_cannot_go_on() -> None:
    async with running(animals(**ENSEMBLES)) as stack:
        whole = events(await stream(stack, "alone"))
        reply = await stream(stack, "alone", whole[1][0], stream=False)
    assert reply.status == 400


async def test_callers_do_not_share_the_answers_of_one_idempotency_key() -> None:
    ann, bob = (resume_point(None, "1", b"{}", name) for name in ("ann", "bob"))
    nobody = resume_point(None, "1", b"{}")
    assert ann and bob and nobody
    assert len({ann.trace_id, bob.trace_id, nobody.trace_id}) == 3
    assert resume_point(None, "1", b"{}", "ann") == ann

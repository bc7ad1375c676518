from __future__ import annotations

import re

import pytest

from runtime.errors import BadRequest, WeightsError
from runtime.tokenization.chat_template import fold_system, plain_chat, render_chat
from runtime.tokenization.tokenizer import Tokenizer, TokenizerDefinition, vocabulary_tokenizer
from runtime.types.query import Message

CHATML = """{% for message in messages %}
    {{- '<|' + message['role'] + '|>' + message['content'] + '\\n' -}}
{% endfor %}
{% if add_generation_prompt %}<|assistant|>{% endif %}
"""
ALTERNATING = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}[model] "
)


def render(template: str, *messages: Message) -> str:
    return render_chat(template, messages, "<bos>", "<eos>")


def test_blocks_are_trimmed_as_transformers_trims_them() -> None:
    text = render(CHATML, Message("system", "S"), Message("user", "Hi & <b>"))
    assert text == "<|system|>S\n<|user|>Hi & <b>\n<|assistant|>"


def test_a_refused_system_role_is_folded_into_the_first_user_message() -> None:
    text = render(ALTERNATING, Message("system", "Be brief."), Message("user", "Hi"))
    assert text == "<bos>[user] Be brief.\n\nHi\n[model] "


def test_a_refused_conversation_is_a_bad_request_in_the_templates_words() -> None:
    with pytest.raises(BadRequest, match="roles must alternate") as caught:
        render(ALTERNATING, Message("user", "a"), Message("user", "b"))
    assert caught.value.param == "messages"
    with pytest.raises(BadRequest, match="System role not supported"):
        render(ALTERNATING, Message("system", "s"), Message("assistant", "b"), Message("user", "c"),
               Message("user", "d"))  # fmt: skip


def test_system_texts_without_a_user_message_become_one() -> None:
    folded = fold_system(
        [Message("system", "a"), Message("assistant", "x"), Message("system", "b")]
    )
    assert folded == [Message("user", "a\n\nb"), Message("assistant", "x")]


def test_templates_may_use_loop_controls_json_time_and_generation_blocks() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
        "{{ {'a': '<é>'} | tojson }} {{ {'a': [1]} | tojson(indent=1) }} {{ strftime_now('%Y') }}"
    )
    text = render(template, Message("system", "S"), Message("user", "U"))
    assert re.fullmatch(r'U\{"a": "<é>"\} \{\n "a": \[\n  1\n \]\n\} \d{4}', text)


@pytest.mark.parametrize(
    "template",
    ["{{ messages.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
     "{{ messages.append(1) }}"],
)  # fmt: skip
def test_a_template_cannot_leave_its_sandbox(template: str) -> None:
    with pytest.raises(BadRequest, match="unsafe"):
        render(template, Message("user", "x"))


def test_a_template_that_cannot_be_read_names_the_remedy() -> None:
    with pytest.raises(WeightsError, match="chat_template.jinja"):
        render("{% if %}", Message("user", "x"))


def test_without_a_template_turns_are_named_in_plain_words() -> None:
    turns = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Yes"),
             Message("user", "Why?")]  # fmt: skip
    assert plain_chat(turns) == "Be brief.\nUser: Hi\nAssistant: Yes\nUser: Why?\nAssistant:"


def test_a_rendered_bos_is_not_doubled_and_specials_are_parsed() -> None:
    made = vocabulary_tokenizer(["Hi"], specials=["<|user|>", "<|assistant|>"])
    for template in (CHATML, "{{ bos_token }}" + CHATML):
        definition = TokenizerDefinition(
            made.json, template, made.bos, made.eos, made.eos_ids, made.add_bos
        )
        tokenizer = Tokenizer(definition)
        bos, user, assistant = map(tokenizer.token_id, ("<bos>", "<|user|>", "<|assistant|>"))
        newline = tokenizer.encode("\n")[0]
        assert tokenizer.chat([Message("user", "Hi")]) == [bos, user, 0, newline, assistant]

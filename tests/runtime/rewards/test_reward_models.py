"""Process reward models: by hand on tables, and against plain transformers on tiny checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

from runtime.config.engines import TableEngine, TransformersEngine
from runtime.config.reward_models import ClassifierReward, StepTagReward
from runtime.engines.scripted.models import TableLM
from runtime.engines.transformers.engine import TransformersLM
from runtime.errors import ConfigError, ContextOverflow, EngineFault, WeightsError
from runtime.rewards import RewardModelConfig, build_reward_model
from runtime.rewards.base import Reasoning
from runtime.rewards.classifier import ClassifierModel
from runtime.rewards.step_tags import StepTagModel
from tests.runtime.engines.conftest import COMMON, save_tokenizer

QUESTION = "Where is the cat?"
STEPS = ("the cat sat", "on the mat", "the door")


def table(**rows: dict[str, float]) -> TableLM:
    words = {f"{word}#": row for word, row in rows.items()}
    return TableLM(TableEngine(vocabulary=("#", "+", "-"), table=words, floor=1e-6))


def tags(engine: Any, **fields: Any) -> StepTagModel:
    fields = {"tag": "#", "step": "{text}{tag}", **fields}
    return StepTagModel(
        engine, StepTagReward(engine=TableEngine(vocabulary=("a",), table={}), **fields)
    )


# -- step tags ---------------------------------------------------------------------------------


async def test_a_value_is_the_share_of_good_among_good_and_bad() -> None:
    model = tags(table(sat={"+": 3, "-": 1, "#": 4}, mat={"+": 1, "-": 1}, door={"-": 1}))
    [values] = await model.score_steps([Reasoning(QUESTION, STEPS)])
    assert values == pytest.approx([0.75, 0.5, 0.0], abs=1e-4)
    rest, none = await model.score_steps(
        [Reasoning(QUESTION, STEPS, since=2), Reasoning(QUESTION, (), since=0)]
    )
    assert rest == pytest.approx(values[2:]) and none == []


async def test_a_tag_in_the_question_or_in_a_step_is_no_end_of_a_step() -> None:
    model = tags(table(sat={"+": 3, "-": 1}, mat={"+": 1, "-": 3}))
    chain = Reasoning("Why # is it?", ("the # cat sat", "on the mat"))
    [values] = await model.score_steps([chain])
    assert values == pytest.approx([0.75, 0.25], abs=1e-4)


async def test_a_chain_beyond_the_window_is_reported() -> None:
    model = tags(TableLM(TableEngine(vocabulary=("#", "+", "-"), table={}, context_length=40)))
    with pytest.raises(ContextOverflow):
        await model.score_steps([Reasoning(QUESTION, STEPS)])


@pytest.mark.parametrize(
    ("fields", "message"),
    (
        ({"tag": "##"}, "tag '##' is not one token"),
        ({"good": "good"}, "good 'good' is not one token"),
        ({"bad": "+"}, "same token"),
    ),
)
def test_signs_that_cannot_be_read_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tags(table(), **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    (
        ({"template": "{question}"}, "{steps} is missing"),
        ({"template": "{steps}"}, "{question} is missing"),
        ({"template": "{question}", "last": 2}, "{steps} is missing"),
        ({"template": "{steps} {question}"}, "must end with {steps}"),
        ({"step": "{text}"}, "{tag} is missing"),
    ),
)
def test_a_form_without_its_places_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepTagReward(engine=TableEngine(vocabulary=("a",), table={}), **fields)


async def test_a_causal_checkpoint_is_read_after_each_tag(folder_of: Any, reference: Any) -> None:
    engine = TransformersLM(TransformersEngine(weights=str(folder_of("llama")), device="cpu"))
    model = tags(engine)
    chain = Reasoning(QUESTION, STEPS)
    [values] = await model.score_steps([chain])
    tokenizer = AutoTokenizer.from_pretrained(folder_of("llama"))
    expected = []
    good, bad = (tokenizer.convert_tokens_to_ids(sign) for sign in "+-")
    for count in range(1, 4):
        text = f"{QUESTION} " + "\n".join(f"{step}#" for step in STEPS[:count])
        row = reference("llama", tokenizer(text, add_special_tokens=False).input_ids)[-1]
        expected.append(float(torch.sigmoid(row[good] - row[bad])))
    assert values == pytest.approx(expected, abs=1e-4)
    await model.close()
    with pytest.raises(EngineFault):
        await model.check()


@pytest.mark.parametrize("last", (1, 2, 5))
async def test_a_judge_may_read_the_newest_steps_only(
    folder_of: Any, reference: Any, last: int
) -> None:
    engine = TransformersLM(TransformersEngine(weights=str(folder_of("llama")), device="cpu"))
    model = tags(engine, last=last, template="{steps}", step="{n} {text}{tag}")
    whole, rest = await model.score_steps([Reasoning("#?", STEPS), Reasoning("#?", STEPS, since=1)])
    tokenizer = AutoTokenizer.from_pretrained(folder_of("llama"))
    expected = []
    good, bad = (tokenizer.convert_tokens_to_ids(sign) for sign in "+-")
    for count in range(1, 4):
        read = list(enumerate(STEPS[:count], 1))[-last:]
        text = "\n".join(f"{number} {step}#" for number, step in read)
        row = reference("llama", tokenizer(text, add_special_tokens=False).input_ids)[-1]
        expected.append(float(torch.sigmoid(row[good] - row[bad])))
    assert whole == pytest.approx(expected, abs=1e-4)
    assert rest == pytest.approx(expected[1:], abs=1e-4)
    await model.close()


# -- classifiers -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """One checkpoint of each form, with random weights."""
    folders = {}
    torch.manual_seed(3)
    for name in ("token", "sequence", "one-label", "qwen-prm"):
        folder = folders[name] = tmp_path_factory.mktemp(name)
        config = Qwen2Config(
            **{**COMMON, "pad_token_id": 0, "vocab_size": save_tokenizer(folder)},
            num_key_value_heads=1,
            num_labels=1 if name == "one-label" else 2,
        )
        if name == "qwen-prm":
            body = Qwen2Model(config)
            head = torch.nn.Sequential(
                torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2)
            )
            weights = {f"model.{key}": value for key, value in body.state_dict().items()}
            weights |= {f"score.{key}": value for key, value in head.state_dict().items()}
            config.architectures = ["Qwen2ForProcessRewardModel"]
            config.save_pretrained(folder)
            save_file(weights, folder / "model.safetensors", {"format": "pt"})
            continue
        kind = Qwen2ForTokenClassification if name == "token" else Qwen2ForSequenceClassification
        model = kind(config)
        torch.nn.init.normal_(model.score.weight, std=0.5)
        model.save_pretrained(folder)
    yield folders


def judge(folder: Path, **fields: Any) -> ClassifierModel:
    config = ClassifierReward(weights=str(folder), tag="#", between="\n", device="cpu", **fields)
    return ClassifierModel(config)


def ids_of(folder: Path, text: str) -> torch.Tensor:
    return torch.tensor([AutoTokenizer.from_pretrained(folder)(text).input_ids])


CHAINS = [
    Reasoning(QUESTION, STEPS),
    Reasoning("Who?", ("the dog",)),
    Reasoning(QUESTION, STEPS, since=1),
]


async def test_a_token_classifier_is_read_at_the_tags(classifiers: dict[str, Path]) -> None:
    folder = classifiers["token"]
    values = await judge(folder).score_steps(CHAINS)
    model = Qwen2ForTokenClassification.from_pretrained(folder).eval()
    ids = ids_of(folder, f"{QUESTION}\n" + "\n".join(f"{step}#" for step in STEPS))
    shares = model(ids).logits[0].softmax(-1)[:, 1]
    at = (ids[0] == AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("#")).nonzero()
    assert values[0] == pytest.approx(shares[at[:, 0]].tolist(), abs=1e-5)
    assert values[2] == pytest.approx(values[0][1:], abs=1e-5)
    assert [len(value) for value in values] == [3, 1, 2]


@pytest.mark.parametrize("form", ("sequence", "one-label"))
async def test_a_sequence_classifier_reads_up_to_each_step(
    classifiers: dict[str, Path], form: str
) -> None:
    folder = classifiers[form]
    values = await judge(folder, max_batch=2).score_steps(CHAINS)
    model = Qwen2ForSequenceClassification.from_pretrained(folder).eval()
    for count, value in enumerate(values[0], 1):
        ids = ids_of(folder, f"{QUESTION}\n" + "\n".join(STEPS[:count]))
        logits = model(ids).logits[0]
        share = logits.sigmoid()[0] if form == "one-label" else logits.softmax(-1)[1]
        share = share.detach()
        assert value == pytest.approx(float(share), abs=1e-5)
    assert values[2] == pytest.approx(values[0][1:], abs=1e-5)


async def test_a_qwen_prm_is_put_together_without_its_code(classifiers: dict[str, Path]) -> None:
    folder = classifiers["qwen-prm"]
    [values] = await judge(folder).score_steps(CHAINS[:1])
    weights = load_file(folder / "model.safetensors")
    body = Qwen2Model.from_pretrained(folder).eval()
    ids = ids_of(folder, f"{QUESTION}\n" + "\n".join(f"{step}#" for step in STEPS))
    states = body(ids).last_hidden_state[0]
    hidden = torch.relu(states @ weights["score.0.weight"].T + weights["score.0.bias"])
    shares = (hidden @ weights["score.2.weight"].T + weights["score.2.bias"]).softmax(-1)[:, 1]
    tag = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("#")
    assert values == pytest.approx(shares[ids[0] == tag].tolist(), abs=1e-5)


async def test_what_is_no_classifier_is_reported(
    classifiers: dict[str, Path], folder_of: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="step-tags"):
        judge(folder_of("llama"))
    with pytest.raises(ConfigError, match="that it was trained with"):
        ClassifierModel(ClassifierReward(weights=str(classifiers["token"]), tag="<extra_0>"))
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in classifiers["qwen-prm"].iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if not k.startswith("score.")},
        broken / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(WeightsError, match="has no head"):
        judge(broken)


async def test_a_chain_beyond_a_classifiers_window_is_reported(
    classifiers: dict[str, Path],
) -> None:
    model = judge(classifiers["token"], max_context=20)
    with pytest.raises(ContextOverflow):
        await model.score_steps(CHAINS)


def test_a_reward_model_is_built_from_its_configuration(classifiers: dict[str, Path]) -> None:
    document = {"judge": {"type": "classifier", "weights": str(classifiers["token"]), "tag": "#"}}
    config = RewardModelConfig.model_validate(json.loads(json.dumps(document)))
    assert isinstance(build_reward_model(config), ClassifierModel)
    assert config.as_member().engine.type == "transformers"

"""Every YAML file in the repository is read by what will read it in earnest."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from deployments.config.app_config import AppConfig
from deployments.config.serve_file import ServeFile, load
from deployments.http.auth.network import refuse_exposed
from deployments.launch.local_ray import serve_options
from deployments.training.citer_setup import load_pair_setup
from deployments.training.der_setup import load_setup
from policies.cascade.sequential.agent import load_agent
from policies.token.deferral.routed import RoutedConfig
from runtime.artifacts.token_router import load_router
from runtime.config.access import AccessConfig, KeyBudget, KeyConfig, KeysFile
from runtime.errors import ConfigError
from tests.support.paths import ROOT

FILES = sorted([*ROOT.glob("examples/*.yaml"), *ROOT.glob("deployments/recipes/*.yaml")])
TRAINING_FILES = [path for path in FILES if path.name.startswith("train_der")]
ROUTER_FILES = [path for path in FILES if path.name.startswith("train_citer")]
SERVE_FILES = [path for path in FILES if path not in TRAINING_FILES + ROUTER_FILES]


@pytest.mark.parametrize("path", SERVE_FILES, ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    document, config = load(path)
    assert config.members
    assert config.ensembles


@pytest.mark.parametrize("path", SERVE_FILES, ids=lambda path: path.name)
def test_every_example_fits_ray_serves_own_schema(path: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    document = yaml.safe_load(path.read_text())
    schema = ServeDeploySchema.model_validate(document)
    assert schema.applications[0].import_path == "deployments.app:build_app"


@pytest.mark.parametrize("path", TRAINING_FILES, ids=lambda path: path.name)
def test_every_training_fits_its_serve_config(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    setup = load_setup(path)
    assert setup.training.ensemble in setup.app.ensembles
    agent = load_agent(Path(setup.der.agent))
    assert agent.members == setup.der.members and agent.prompts == setup.der.transfers()
    assert agent.reads == setup.reads and agent.t_max == setup.training.reward.t_max


@pytest.mark.parametrize("path", ROUTER_FILES, ids=lambda path: path.name)
def test_every_router_fits_its_ensemble(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    setup = load_pair_setup(path)
    reads = setup.app.members[setup.citer.pair[0]].engine.weights  # type: ignore[union-attr]
    routed = [one for one in setup.app.ensembles.values() if isinstance(one, RoutedConfig)]
    assert len(routed) >= 2
    for ensemble in routed:
        router = load_router(Path(ensemble.router))
        assert (router.method, router.reads) == (ensemble.type, reads)
    trained = load_router(Path(setup.citer.router)).about
    assert trained["training"] == setup.fingerprint and trained["round"] == setup.training.rounds


GOOD = """\
applications:
  - name: orchestrion
    import_path: deployments.app:build_app
    args:
      members:
        one:
          engine:
            type: echo
      ensembles:
        both:
          type: sweetspan
          members: [one]
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "          type: sweetspan",
            "          type: sweetspam",
            [":10:", "sweetspam", "specfuse"],
        ),
        ("members: [one]", "members: [oen]", ["oen", "did you mean 'one'"]),
        ("members: [one]", "span_word: 3\n          members: [one]", [":12:", "span_words"]),
        ("members: [one]", "span_words: 0\n          members: [one]", [":12:", "span_words"]),
        ("members: [one]", "members: [one, one]", ["twice", "weights"]),
        ("members: [one]", "quorum: 2\n          members: [one]", ["quorum", "lower it"]),
        (
            "            type: echo",
            "            typo: echo",
            [":7:", "engine", "type", "transformers"],
        ),
        ("        both:", "        one:", ["both a member and an ensemble"]),
        ("deployments.app:build_app", "elsewhere:build", ["import_path", "deployments.app"]),
        ("applications:", "applikations:", [":1:", "did you mean 'applications'"]),
        ("      members:", "     members:", ["not valid YAML"]),
    ],
)
def test_a_mistake_is_reported_with_its_line_and_the_remedy(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    for words in expected:
        assert words in str(caught.value)


ENGINE = "            type: echo"
TEN = ",".join(["x"] * 10)
BOMB = f"a0: &a0 [{TEN}]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 8)
)
MISTAKES: dict[str, tuple[str | bytes, list[str]]] = {
    "tabs": (GOOD.replace(ENGINE, "\t\ttype: echo"), [":8:", "spaces, not with tabs"]),
    "indentation": (
        GOOD.replace("          members: [", "         members: ["),
        [":12:", "line 10"],
    ),
    "a key twice": (
        GOOD.replace("          type: sweetspan", "          type: sweetspan\n          type: gac"),
        [":12:", "type", "twice, in line 11"],
    ),
    "a member twice": (
        GOOD.replace("      ensembles:", "        one: {engine: {type: echo}}\n      ensembles:"),
        [":9:", "one: stands twice, in line 6"],
    ),
    "no such anchor": (GOOD.replace("[one]", "*one"), [":12:", "'one'", "define it with &"]),
    "an anchor within itself": (GOOD.replace("[one]", "&m [one, *m]"), [":12:", "part of"]),
    "anchors that grow": (BOMB + GOOD, [":6:", "aliases", "use fewer"]),
    "an empty file": ("# nothing\n", ["is empty", "quickstart"]),
    "a list": ("\n- a\n", [":2:", "no mapping"]),
    "UTF-16": (GOOD.encode("utf-16"), [":1:", "0xff is not UTF-8"]),
    "Latin-1": (GOOD.replace("both", "b\xf6th").encode("latin-1"), [":10:", "0xf6", "as UTF-8"]),
    "a NUL": (GOOD.replace("both", "bo\x00th"), [":10:", "0x0", "remove it"]),
    "a date that is none": (
        GOOD.replace("[one]", "[2024-13-45]"),
        [":12:", "2024-13-45", "quotes"],
    ),
    "a number that is none": (GOOD.replace("[one]", "9" * 5000), [":12:", "999", "quotes"]),
    "a tag that runs code": (
        GOOD.replace("[one]", "!!python/object/apply:os.system [echo]"),
        [":12:", "leave tags"],
    ),
    "a name that is a number": (GOOD.replace("        both:", "        1:"), [":10:", "quotes"]),
    "a name that is none": (GOOD.replace("        both:", "        no:"), [":9:", "quotes"]),
    "two documents": (f"{GOOD}---\n{GOOD}", [":13:", "single document"]),
    "an open bracket": (GOOD.replace("[one]", "[one"), ["begins in line 12"]),
    "too deep": ("a: " + "[" * 3000 + "]" * 3000, ["nested too deeply"]),
    "no members": (GOOD.split("    args")[0], [":2:", "members is missing"]),
    "a port that is none": ("http_options: {port: many}\n" + GOOD, [":1:", "http_options.port"]),
    "not a number": (GOOD.replace(ENGINE, f"{ENGINE}\n            context_length: .nan"), [":9:"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_yaml_that_cannot_be_meant_is_reported_with_file_line_and_remedy(
    tmp_path: Path, name: str
) -> None:
    content, expected = MISTAKES[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    for words in expected:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        GOOD.replace("engine:", "engine: &e").replace(
            "      ensembles:", "        two: {engine: *e}\n      ensembles:"
        ),
        GOOD.replace("        one:\n", "        one: &o\n").replace(
            "      ensembles:", "        two: {<<: *o}\n      ensembles:"
        ),
    ],
)
def test_anchors_and_merges_are_taken(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    _, config = load(path)
    assert config.members["two"] == config.members["one"]


def test_the_keys_of_a_serve_file_are_rays_own() -> None:
    from ray.serve.schema import ServeDeploySchema

    assert set(ServeFile.model_fields) == set(ServeDeploySchema.model_fields)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory; give the path of a YAML file"):
        load(tmp_path)


def test_a_missing_file_is_reported() -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load(Path("nowhere.yaml"))


def test_an_ensemble_of_configured_members_is_valid() -> None:
    config = AppConfig.model_validate(yaml.safe_load(GOOD)["applications"][0]["args"])
    assert config.policy_configs()["both"].members == ("one",)


@pytest.mark.parametrize("path", SERVE_FILES, ids=lambda path: path.name)
def test_every_example_that_others_can_reach_has_keys(path: Path) -> None:
    document, config = load(path)
    refuse_exposed(config.gateway.access, serve_options(document)[0])


def test_the_keys_in_the_docs_are_as_a_file_of_keys_is_read() -> None:
    page = (ROOT / "docs/security.md").read_text()
    [text] = [block for block in page.split("```") if block.startswith("yaml\n# keys.yaml")]
    keys = KeysFile.model_validate(yaml.safe_load(text.removeprefix("yaml"))).keys
    assert [key.name for key in keys] == ["ann", "batch-jobs"]


@pytest.mark.parametrize(
    ("model", "before"), [(KeyConfig, ""), (KeyBudget, "budget."), (AccessConfig, "access.")]
)
def test_the_docs_name_every_field_about_keys(model: type[BaseModel], before: str) -> None:
    page = (ROOT / "docs/security.md").read_text()
    fields = [name for name in model.model_fields if name != "budget"]
    assert not [name for name in fields if f"| `{before}{name}` |" not in page]

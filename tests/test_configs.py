"""Every YAML file in the repository is read by what will read it in earnest."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from deployments.cluster import serve_options
from deployments.config import AppConfig, load
from deployments.http.reach import refuse_exposed
from deployments.pair_world import load_pair_setup
from deployments.world import load_setup
from policies.cascade.agent import load_agent
from policies.token.citer import RoutedConfig
from runtime.access_config import AccessConfig, KeyBudget, KeyConfig, KeysFile
from runtime.errors import ConfigError
from runtime.router import load_router

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("examples/*.yaml"), *ROOT.glob("deployments/*.yaml")])
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
    ("old", "new", "told"),
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
        ("applications:", "applikations:", ["applications", "quickstart"]),
        ("      members:", "     members:", ["not valid YAML"]),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_remedy(
    tmp_path: Path, old: str, new: str, told: list[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    for words in told:
        assert words in str(caught.value)


def test_a_missing_file_is_told() -> None:
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

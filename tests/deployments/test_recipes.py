"""The GPU configurations fit the cards they name, and their comments tell the right figures."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import DeploymentSchema, ServeDeploySchema

from deployments.app import build_app
from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from deployments.serving.replica_options import member_options
from runtime.config.engines import VllmEngine
from runtime.config.members import MemberConfig
from tests.support.paths import ROOT

FOLDER = ROOT / "deployments" / "recipes"
TRIO, SINGLE = FOLDER / "gpu_7b_trio.yaml", FOLDER / "gpu_single_card.yaml"
BOTH = pytest.mark.parametrize("path", [TRIO, SINGLE], ids=lambda path: path.stem)

GIB = 2**30
CARD = 22 * GIB
"""What is counted of a card of 24 GB."""
ASSUMED = 1 * GIB
"""For activations and CUDA graphs, and on a shared card for CUDA itself; not measured."""
REQUEST = 2048
"""Tokens of a request, prompt and answer."""
WIDTH = 2
"""Bytes of a bfloat16."""


@dataclass(frozen=True)
class Architecture:
    """As the model's config.json says; ``parameters`` as its safetensors file counts them."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    window: int
    tied: bool
    biased: bool
    parameters: int

    @property
    def counted(self) -> int:
        """Embeddings, attention, gated feed-forward and norms."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * self.hidden * (queries + keys) + self.biased * (queries + 2 * keys)
        layer = attention + 3 * self.hidden * self.feed_forward + 2 * self.hidden
        embeddings = (1 if self.tied else 2) * self.vocabulary * self.hidden
        return embeddings + self.layers * layer + self.hidden

    @property
    def weights(self) -> int:
        return self.parameters * WIDTH

    @property
    def kv_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * WIDTH


# fmt: off
ARCHITECTURES = {
    "hf:Qwen/Qwen2.5-7B-Instruct": Architecture(
        28, 3584, 28, 4, 128, 18944, 152064, 32768, False, True, 7_615_616_512),
    "hf:ibm-granite/granite-3.3-8b-instruct": Architecture(
        40, 4096, 32, 8, 128, 12800, 49159, 131072, True, False, 8_170_864_640),
    "hf:tiiuae/Falcon3-7B-Instruct": Architecture(
        28, 3072, 12, 4, 256, 23040, 131072, 32768, False, False, 7_455_550_464),
    "hf:Qwen/Qwen2.5-1.5B-Instruct": Architecture(
        28, 1536, 12, 2, 128, 8960, 151936, 32768, True, True, 1_543_714_304),
    "hf:HuggingFaceTB/SmolLM2-1.7B-Instruct": Architecture(
        24, 2048, 32, 32, 64, 8192, 49152, 8192, True, False, 1_711_376_384),
    "hf:tiiuae/Falcon3-1B-Instruct": Architecture(
        18, 2048, 8, 4, 256, 8192, 131072, 8192, False, False, 1_669_408_768),
}
# fmt: on


class Plan:
    """A member's bytes on its card, from its own settings."""

    def __init__(self, member: MemberConfig) -> None:
        assert isinstance(member.engine, VllmEngine)
        self.engine = engine = member.engine
        self.model = model = ARCHITECTURES[engine.weights]
        assert engine.gpu_memory_utilization is not None
        self.share = math.ceil(CARD * engine.gpu_memory_utilization)
        self.rows = int(engine.engine_args["max_num_batched_tokens"])
        self.logits = self.rows * model.vocabulary * 4
        own = engine.kv_cache_memory_bytes
        self.cache = int(own) if own is not None else self.share - model.weights - ASSUMED
        self.sum = model.weights + self.cache + ASSUMED + self.logits
        blocks = self.cache // (model.kv_per_token * (engine.block_size or 16))
        self.tokens = blocks * (engine.block_size or 16)

    def comments(self) -> list[str]:
        model, own = self.model, self.engine.kv_cache_memory_bytes
        cache = "" if own is not None else "share - weights - 1 GiB = "
        parts, left = "weights + cache + logits + 1 GiB", ""
        if own is None:
            parts, left = "share + logits", f", {CARD - self.sum:,} left"
        return [
            f"Weights: {model.parameters:,} parameters x {WIDTH} bytes = {model.weights:,} bytes",
            f"KV per token: 2 x {model.layers} layers x {model.kv_heads} heads x {model.head_dim} "
            f"x {WIDTH} bytes = {model.kv_per_token:,} bytes",
            f"Cache: {cache}{self.cache:,} bytes",
            f"Tokens: {self.tokens:,} = {self.tokens // REQUEST} requests of {REQUEST:,}",
            f"Logits: {self.rows:,} rows x {model.vocabulary:,} x 4 bytes = {self.logits:,} bytes",
            f"Sum: {parts} = {self.sum:,} bytes{left}",
        ]


def plans(path: Path) -> dict[str, Plan]:
    return {name: Plan(member) for name, member in load(path)[1].members.items()}


def commented(path: Path, member: str) -> list[str]:
    """The comment lines between a member's name and its engine."""
    found = re.search(
        rf"^ {{8}}{member}:.*\n((?: {{10}}#.*\n)*) {{10}}engine:", path.read_text(), re.M
    )
    assert found is not None
    return [line.strip("# ") for line in found[1].splitlines()]


@pytest.mark.parametrize("model", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_the_parameters_of_a_model_follow_from_its_architecture(model: Architecture) -> None:
    assert model.counted == model.parameters


@BOTH
def test_the_comments_of_a_member_are_its_arithmetic(path: Path) -> None:
    for name, plan in plans(path).items():
        assert commented(path, name) == plan.comments(), name


@BOTH
def test_the_header_names_the_card(path: Path) -> None:
    assert f"counted as {CARD // GIB} GiB = {CARD:,} bytes" in path.read_text()


@BOTH
def test_the_cache_holds_a_whole_window_and_several_requests(path: Path) -> None:
    for name, plan in plans(path).items():
        window = plan.engine.max_model_len
        assert window is not None
        assert plan.engine.dtype == "bfloat16", name
        assert window <= min(plan.model.window, plan.tokens), name
        assert plan.tokens >= 4 * REQUEST, name
        assert plan.engine.max_num_seqs <= plan.rows, name


def test_each_of_the_trio_fits_a_card_of_its_own() -> None:
    for name, plan in plans(TRIO).items():
        assert plan.sum == plan.share + plan.logits, name
        assert plan.sum + GIB <= CARD, f"{name}: nothing left for CUDA itself"
        assert f"= {plan.share:,} bytes for weights" in TRIO.read_text(), name


def test_all_members_fit_the_single_card() -> None:
    total = sum(plan.sum for plan in plans(SINGLE).values())
    assert total <= CARD
    assert f"# Sum: {total:,} bytes, {CARD - total:,} left.\n" in SINGLE.read_text()


def test_the_last_to_start_on_the_single_card_finds_its_share_free() -> None:
    members = plans(SINGLE)
    total = sum(plan.sum for plan in members.values())
    for name, plan in members.items():
        assert plan.engine.kv_cache_memory_bytes is not None, name
        assert CARD - (total - plan.sum) >= plan.share, name


@pytest.mark.parametrize(("path", "each", "cards"), [(TRIO, 1, 3), (SINGLE, 0.33, 1)])
def test_the_gpus_requested_of_ray_are_those_there_are(path: Path, each: float, cards: int) -> None:
    params = []
    for name, member in load(path)[1].members.items():
        schema = DeploymentSchema.model_validate({"name": name} | member_options(member))
        assert schema.num_replicas == 1
        params.append(schema.ray_actor_options.num_gpus)
    assert params == [each] * 3
    assert cards - 0.05 < sum(params) <= cards


@BOTH
def test_serve_builds_the_application_from_the_file(path: Path) -> None:
    schema = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    assert schema.http_options.host == "127.0.0.1"
    application = schema.applications[0]
    assert application.import_path == "deployments.app:build_app"
    config = AppConfig.model_validate(application.args)
    assert {e.type for e in config.ensembles.values()} == {"sweetspan", "specfuse", "cool-fusion"}
    assert all(e.quorum == 2 for e in config.ensembles.values())
    assert build_app(config)._bound_deployment.name == "gateway"


def test_the_papers_search_is_configured_with_its_judge() -> None:
    document, config = load(FOLDER / "gpu_le_mcts.yaml")
    ServeDeploySchema.model_validate(document)
    judge = config.reward_models["math-shepherd"].judge
    assert (judge.type, judge.tag) == ("step-tags", "ки")
    assert set(config.served) == {*config.members, "math-shepherd"}
    assert config.ensembles["le-mcts"].judge == "math-shepherd"
    build_app(config)

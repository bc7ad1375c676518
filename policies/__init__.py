"""The methods, one small file each.

To add one: write ``policies/<level>/<name>.py`` with a config (``type: Literal["<name>"]``) and a
class whose docstring names the paper and whose ``needs`` say what members must provide, then add
one import and one line to ``METHODS`` below. An installed package adds one by an entry point.
``make docs`` renews docs/methods.md; a test file in ``tests/policies`` proves the method on a
hand-computed example.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, get_args

from policies.base import Level, Method, Policy
from policies.cascade.sequential.baselines import (
    FixedRoute,
    FixedRouteConfig,
    RandomRoute,
    RandomRouteConfig,
)
from policies.cascade.sequential.der import DER, DERConfig
from policies.process.best_of import (
    BestOfEnsemble,
    BestOfEnsembleConfig,
    BestOfN,
    BestOfNConfig,
)
from policies.process.cbs import CBS, CBSConfig
from policies.process.ebs import EBS, EBSConfig
from policies.process.le_mcts import LEMCTS, LEMCTSConfig
from policies.single import Single, SingleConfig
from policies.span.cool_fusion import CoolFusion, CoolFusionConfig
from policies.span.specem import SpecEM, SpecEMConfig
from policies.span.specfuse import SpecFuse, SpecFuseConfig
from policies.span.sweetspan import SweetSpan, SweetSpanConfig
from policies.token.abe import ABE, ABEConfig
from policies.token.citer import CITER, CITERConfig
from policies.token.co_llm import CoLLM, CoLLMConfig
from policies.token.deepen import DeePEn, DeePEnConfig
from policies.token.eva import EVA, EVAConfig
from policies.token.gac import GaC, GaCConfig
from policies.token.packllm import PackLLM, PackLLMConfig
from policies.token.uncertainty import Uncertainty, UncertaintyConfig
from policies.token.unite import UniTe, UniTeConfig
from runtime.config.ensembles import PolicyConfig
from runtime.config.plugins import Plugin, load_plugins, refusal, type_of

METHODS: Final[dict[str, Method]] = {
    "single": Method(Single, SingleConfig),
    "sweetspan": Method(SweetSpan, SweetSpanConfig),
    "specfuse": Method(SpecFuse, SpecFuseConfig),
    "specem": Method(SpecEM, SpecEMConfig),
    "cool-fusion": Method(CoolFusion, CoolFusionConfig),
    "gac": Method(GaC, GaCConfig),
    "unite": Method(UniTe, UniTeConfig),
    "deepen": Method(DeePEn, DeePEnConfig),
    "eva": Method(EVA, EVAConfig),
    "packllm": Method(PackLLM, PackLLMConfig),
    "abe": Method(ABE, ABEConfig),
    "citer": Method(CITER, CITERConfig),
    "co-llm": Method(CoLLM, CoLLMConfig),
    "uncertainty": Method(Uncertainty, UncertaintyConfig),
    "le-mcts": Method(LEMCTS, LEMCTSConfig),
    "best-of-n": Method(BestOfN, BestOfNConfig),
    "best-of-ensemble": Method(BestOfEnsemble, BestOfEnsembleConfig),
    "ebs": Method(EBS, EBSConfig),
    "cbs": Method(CBS, CBSConfig),
    "der": Method(DER, DERConfig),
    "fixed-route": Method(FixedRoute, FixedRouteConfig),
    "random-route": Method(RandomRoute, RandomRouteConfig),
}
"""Orchestrion's own methods, by the configuration's ``type``."""


@cache
def method_plugins() -> list[Plugin]:
    """Methods of installed packages: entry points of the group ``orchestrion.methods``, each a
    ``Method``."""
    return load_plugins("orchestrion.methods", METHODS, method_fault)


@cache
def methods() -> dict[str, Method]:
    """All methods that can be used, by ``type``: Orchestrion's own and those of plugins."""
    plugins = {plugin.name: plugin.value for plugin in method_plugins() if plugin.error is None}
    return METHODS | plugins


def policy_configs() -> list[type[PolicyConfig]]:
    """The configurations that an ensemble may have. A plugin that cannot be used has one too, which
    says why."""
    configs = {name: method.config for name, method in methods().items()}
    refused = {
        plugin.name: refusal(PolicyConfig, plugin)
        for plugin in method_plugins()
        if plugin.error is not None
    }
    return list((configs | refused).values())


def build_policy(config: PolicyConfig) -> Policy[Any]:
    """The policy that a configuration describes."""
    return methods()[config.type].policy(config)


def method_fault(name: str, value: Any) -> str | None:
    """What is wrong with what an entry point of the group ``orchestrion.methods`` refers to."""
    if not isinstance(value, Method):
        return f"is {value!r}, not a policies.base.Method"
    if not issubclass(value.policy, Policy) or not issubclass(value.config, PolicyConfig):
        return "names no policies.base.Policy with its PolicyConfig"
    if type_of(value.config) != name:
        return f"has a configuration of type {type_of(value.config)!r}, not its entry point's name"
    level = getattr(value.policy, "level", None)
    if level not in get_args(Level):
        return f"has level {level!r}, not one of {', '.join(get_args(Level))}"
    if not hasattr(value.policy, "needs"):
        return "does not declare what it needs of its members"
    return None

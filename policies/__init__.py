"""The methods, one small file each.

To add one: write ``policies/<level>/<name>.py`` with a config (``type: Literal["<name>"]``) and a
class whose docstring names the paper, then add one import and one line to ``METHODS`` below.
``make docs`` renews docs/methods.md; a test file in ``tests/policies`` proves the method on a
hand-computed example.
"""

from __future__ import annotations

from typing import Any

from policies.base import Policy
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

METHODS: dict[str, tuple[type[Policy[Any]], type[PolicyConfig]]] = {
    "single": (Single, SingleConfig),
    "sweetspan": (SweetSpan, SweetSpanConfig),
    "specfuse": (SpecFuse, SpecFuseConfig),
    "specem": (SpecEM, SpecEMConfig),
    "cool-fusion": (CoolFusion, CoolFusionConfig),
    "gac": (GaC, GaCConfig),
    "unite": (UniTe, UniTeConfig),
    "deepen": (DeePEn, DeePEnConfig),
    "eva": (EVA, EVAConfig),
    "packllm": (PackLLM, PackLLMConfig),
    "abe": (ABE, ABEConfig),
    "citer": (CITER, CITERConfig),
    "co-llm": (CoLLM, CoLLMConfig),
    "uncertainty": (Uncertainty, UncertaintyConfig),
    "le-mcts": (LEMCTS, LEMCTSConfig),
    "best-of-n": (BestOfN, BestOfNConfig),
    "best-of-ensemble": (BestOfEnsemble, BestOfEnsembleConfig),
    "ebs": (EBS, EBSConfig),
    "cbs": (CBS, CBSConfig),
    "der": (DER, DERConfig),
    "fixed-route": (FixedRoute, FixedRouteConfig),
    "random-route": (RandomRoute, RandomRouteConfig),
}
"""Method name (the config's ``type``) -> class and config."""


def build_policy(config: PolicyConfig) -> Policy[Any]:
    """The policy that a configuration describes."""
    method, _ = METHODS[config.type]
    return method(config)

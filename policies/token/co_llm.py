"""Co-LLM: "Learning to Decode Collaboratively with Multiple Language Models" (arXiv 2403.03870)

The small member has one more output, a deferral logit over its last state; where the probability of
deferring is high the large member writes the token. It is trained so that the mixture of both gives
the right texts a high probability: -log[(1 - p) P_small + p P_large], without anybody telling where
to defer.

Deviations: the paper trains the whole small model with that loss; here its weights stay as they are
and the extra row alone is learnt (``orchestrion train citer`` makes it from the same records as
CITER's router). The paper's initial labels, where the large model knows better, are not needed for
so few parameters. ``threshold`` is that of writing on: 1 - the paper's.

Cost: as CITER's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from policies.token.deferral.routed import Routed, RoutedConfig


class CoLLMConfig(RoutedConfig):
    type: Literal["co-llm"] = "co-llm"


class CoLLM(Routed):
    """A deferral logit learnt from the likelihood of the mixture."""

    paper: ClassVar[str] = "2403.03870"
    title: ClassVar[str] = "Co-LLM"

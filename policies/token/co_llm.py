"""Co-LLM: "Learning to Decode Collaboratively with Multiple Language Models" (arXiv 2403.03870)

The small member has one more output, a deferral logit over its last hidden state; where the
deferral probability p is high the large member writes the token. It is trained to maximise the
likelihood of reference texts under the mixture, loss -log[(1 - p) P_small + p P_large], without
labels of where to defer.

Deviations: the paper trains the whole small model with that loss; here its weights are frozen and
only the extra row is learnt (``orchestrion train citer`` trains it on the same records as CITER's
router). The paper's initial labels, where the large model is better, are not needed for so few
parameters. ``threshold`` is that of not deferring: 1 - the paper's.

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

"""CITER: "Collaborative Inference for Efficient Large Language Model Decoding with Token-Level
Routing" (arXiv 2502.01976)

Before each token a router, a small network over the small member's last state, tells the
probability that the small member's own token is good enough; below ``threshold`` the large member
writes it. ``orchestrion train citer`` collects the preferences and trains the router; here it is
loaded, without RLlib.

Deviations: the published code reads the whole context into the large model again at each of its
tokens, and asks both for one token at a time; here a stretch of small tokens is one call, the large
member's cache keeps what it has read, and hard tokens in a row share its call (handover.py).

Cost: one call to the small member for each stretch of its tokens, one to the large for each place
where it takes over.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from policies.token.deferral.routed import Routed, RoutedConfig


class CITERConfig(RoutedConfig):
    type: Literal["citer"] = "citer"
    threshold: float = Field(0.95, ge=0, le=1)
    """tau: the small member writes a token when the router gives it at least this probability of
    being good enough; a request may name its own (``ensemble.threshold``)."""


class CITER(Routed):
    """A router trained on preferences decides who writes each token."""

    paper: ClassVar[str] = "2502.01976"
    title: ClassVar[str] = "CITER"

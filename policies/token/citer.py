"""CITER: "Collaborative Inference for Efficient Large Language Model Decoding with Token-Level
Routing" (arXiv 2502.01976)

Before each token a router, a small network over the small member's last hidden state, computes the
probability that the small member's own token is good enough; below ``threshold`` the large member
writes it. ``orchestrion train citer`` collects the preferences and trains the router; serving loads
it without RLlib.

Deviations: the published code reads the whole context into the large model again at each of its
tokens, and requests one token at a time from both; here a run of small tokens is one call, the
large member's cache holds earlier text, and consecutive hard tokens share a call
(policies/token/deferral/base.py).

Cost: one call to the small member for each run of its tokens, one to the large for each deferral.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from policies.token.deferral.routed import Routed, RoutedConfig


class CITERConfig(RoutedConfig):
    type: Literal["citer"] = "citer"
    threshold: float = Field(0.95, ge=0, le=1)
    """tau: the small member writes a token when the router gives it at least this probability of
    being good enough; a request may set its own (``ensemble.threshold``)."""


class CITER(Routed):
    """A router trained on preferences decides who writes each token."""

    paper: ClassVar[str] = "2502.01976"
    title: ClassVar[str] = "CITER"

"""Co-LLM (arXiv 2403.03870): the likelihood of references under the mixture of both members."""

from __future__ import annotations

import copy

import numpy as np
import pyarrow as pa
import torch

from envs.token_routing.config import PreferenceSettings
from envs.token_routing.preference_training import set_aside
from envs.token_routing.preferences import states
from runtime.artifacts.mlp import Layers


def train_co_llm(table: pa.Table, settings: PreferenceSettings) -> tuple[Layers, float]:
    """Co-LLM's deferral (arXiv 2403.03870): one row over the state, trained so that the mixture of
    both members gives the texts a high probability. Its loss on questions that were set aside."""
    seen = torch.from_numpy(states(table))
    small, large = (
        torch.from_numpy(table[name].to_numpy().astype(np.float32))
        for name in ("small_logprob", "large_logprob")
    )
    aside = torch.from_numpy(set_aside(table, settings))
    torch.manual_seed(settings.seed)
    row = torch.nn.Linear(seen.shape[1], 1)
    optimizer = torch.optim.Adam(row.parameters(), lr=settings.rate)
    train = torch.nonzero(~aside).squeeze(-1)

    def loss(places: torch.Tensor) -> torch.Tensor:
        odds = row(seen[places]).squeeze(-1)
        keeps, defers = (torch.nn.functional.logsigmoid(sign * odds) for sign in (1, -1))
        return -torch.logaddexp(keeps + small[places], defers + large[places]).mean()

    best, since = (float("inf"), copy.deepcopy(row.state_dict())), 0
    left = torch.nonzero(aside).squeeze(-1)
    # A single row is learnt in few seconds but many passes.
    for _ in range(settings.epochs * 20):
        for places in train[torch.randperm(len(train))].split(settings.batch):
            optimizer.zero_grad()
            loss(places).backward()
            optimizer.step()
        with torch.inference_mode():
            now = float(loss(left))
        since += 1
        if now < best[0] - 1e-5:
            best, since = (now, copy.deepcopy(row.state_dict())), 0
        if since >= settings.patience:
            break
    row.load_state_dict(best[1])
    weight, bias = row.weight.detach().numpy(), row.bias.detach().numpy()
    return ((weight.copy(), bias.copy()),), best[0]

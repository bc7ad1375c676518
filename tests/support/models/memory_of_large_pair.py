"""Prepares the two pretrained models for one method and prints by how many MB the process grew.

Run as a process of its own, with SCRATCH as the folder to cache in: the peak is the process's. The
models themselves are not loaded; their embeddings are read from their checkpoints.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from policies.token.numerics.projection import project, projection
from policies.token.numerics.relative_space import RelativeSpace, anchors_of, fuse
from runtime.config.engines import EchoEngine
from runtime.config.members import MemberConfig
from runtime.engines.base import EngineSpec
from runtime.session.connection import Connection
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.outputs import Tokens
from runtime.vocab import table, vector_table
from runtime.weights.embeddings import locate
from tests.support.models.tokenizers import pretrained_folders


class CheckpointEngine:
    """All of an engine that preparing needs."""

    def __init__(self, folder: Path) -> None:
        tokenizer = Tokenizer.from_folder(folder)
        self.stored = locate(folder, folder.name)
        self.spec = EngineSpec(
            folder.name, 2048, *self.stored.shape, tokenizer.eos_ids, tokenizer.definition
        )

    async def vectors(self, ids: Tokens) -> np.ndarray:
        return await asyncio.to_thread(self.stored.rows, ids)


def memory(key: str) -> float:
    """MB, from what Linux says of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


async def connected() -> dict[str, Connection]:
    members = {}
    for folder in pretrained_folders():
        engine: Any = CheckpointEngine(folder)
        name = "large" if engine.spec.vocab_size > 200_000 else "small"
        members[name] = Connection(name, MemberConfig(engine=EchoEngine()), engine)
        await members[name].open()
    return members


async def relative(members: dict[str, Connection]) -> None:
    tables = {name: await vector_table(member.engine) for name, member in members.items()}
    anchors = anchors_of({name: member.tokenizer for name, member in members.items()}, None)
    space = RelativeSpace(tables, anchors)
    rng = np.random.default_rng(0)
    for _ in range(200):
        ids = rng.choice(len(anchors["large"]), 10, replace=False)
        p = np.sort(rng.dirichlet(np.ones(10)))[::-1]
        rows = {name: (own[ids], p) for name, own in anchors.items()}
        weights = dict.fromkeys(rows, 0.5)
        candidates = anchors["large"][ids]
        found = fuse(space, "large", rows, weights, candidates, np.log(p))
        assert abs(np.exp(found).sum() - 1) < 1e-9
    assert space.kept_bytes <= 256 * 2**20


async def projected(members: dict[str, Connection]) -> None:
    large, small = members["large"], members["small"]
    tables = [await table(member.engine) for member in (large, small)]
    matrix = await projection(large, tables[0], small, tables[1])
    assert matrix.shape == (262144, 49152)
    paris, same = (member.tokenizer.ids_of[b" Paris"] for member in (large, small))
    ids, shares = project(matrix, np.array([paris]), np.array([1.0]))
    assert ids[0] == same
    assert abs(shares.sum() - 1) < 1e-5


async def main() -> None:
    members = await connected()
    before = memory("VmRSS:")
    os.environ["ORCHESTRION_CACHE"] = os.environ["SCRATCH"]
    await {"relative": relative, "projection": projected}[sys.argv[1]](members)
    print(memory("VmHWM:") - before)


if __name__ == "__main__":
    asyncio.run(main())

"""LE-MCTS: "Ensembling Large Language Models with Process Reward-Guided Tree Search for Better
Complex Reasoning" (arXiv 2412.15797)

All members write into one tree of reasoning steps (lines). Each iteration: go down from the root to
a step that is not fully expanded, by U = v + C sqrt(ln N_parent / N); a random member that has not
written there yet writes one greedy step; the process reward model values it; all steps above move
towards their best child (optimistic backpropagation). The answer is the finished path whose end the
reward model values most.

The paper's pseudo-code leaves gaps; resolved here so:

- It picks among children that are *not* fully expanded, so read literally a search could never pass
  a fully expanded one and never gets deeper. Here the descent goes through fully expanded steps
  and stops at the first that is not; only where nothing below can be expanded it does not enter.
- Rule (ii) (v - best child's v < epsilon: go deeper) would close the root after its first child,
  since the root has no value of its own. The root is exempt. A child that cannot be searched any
  further (it ends the answer) does not close its parent either: there is nothing deeper.
- n_child and epsilon are not given: n_child is the number of members, as "without replacement"
  says, epsilon 0.01.
- The reward model is given the question and all steps; the value is that of the newest step.
- Two members that write the same step share one node: another visit, no second child.
- A step ends with its newline; an answer ends with its author's EOS, a stop string, or a step that
  matches ``ends``. Depth is bounded by ``max_steps``.
- Ties: bounds, values and rewards that agree to six significant digits are equal. Of equal steps
  the one with more visits is taken, then the one whose author comes first in ``members``, then the
  lesser text; neither the order of arrival nor the last bit of a value plays a part.
- Without a finished path the best incomplete one is returned and marked: highest value, then
  longest.

``parallel`` expansions within one request make the search faster and another one: a step being
written counts as a visit without reward (virtual loss). Steps are added in the order in which
they were begun, so the same seed gives the same tree. Requests always share engine batches.

Cost: an iteration is one call to a member (one step) and one to the reward model; with ``reward:
likelihood`` one scoring call to each other member instead. The step that another member wrote at
the same place, or the newest of the same depth, is sent as a guess: an engine that verifies guesses
(transformers) then writes the same step in fewer passes.
"""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from pydantic import Field

from policies.process.base import Line, ProcessPolicy, SearchResult
from policies.process.config import JudgedConfig
from policies.process.node import Backpropagation, Node, Rank, Rules
from policies.process.steps import Step, value_of, write
from policies.process.tree import Tree
from runtime.errors import BudgetSpent
from runtime.session.session import Session
from runtime.types.spans import Progress

PROGRESS_S: Final = 1.0
"""Seconds between progress events; each is also a checkpoint for another coordinator."""


class LEMCTSConfig(JudgedConfig):
    type: Literal["le-mcts"] = "le-mcts"
    n_iter: int = Field(200, ge=1)
    """Most iterations; a search also ends when nothing can be expanded."""
    c: float = Field(0.5, ge=0)
    """C: exploration weight of rarely visited steps. The paper uses 0.5 for hard problems, 1 and
    more for easy ones."""
    n_child: int | None = Field(None, ge=1)
    """Most next steps of a step. Default: the number of members."""
    epsilon: float = Field(0.01, ge=0)
    """A step with a next step less than this below its own value is searched deeper."""
    backpropagation: Backpropagation = "optimistic"
    """``standard`` moves the steps above towards the newest reward instead of the best child."""
    rank: Rank = "last"
    """The value of a whole answer: the reward of its last step, as for reward models of whole
    chains; of its worst step; or the product of all, which helps where the reward model errs."""
    parallel: int = Field(1, ge=1)
    """Concurrent expansions of one request; more than 1 is faster and gives another tree."""


class LEMCTS(ProcessPolicy[LEMCTSConfig]):
    """A tree of steps by all members, searched with a process reward model."""

    paper: ClassVar[str] = "2412.15797"
    title: ClassVar[str] = "LE-MCTS"

    async def search(self, session: Session) -> AsyncGenerator[Progress | SearchResult, None]:
        search = _Search(session, self.config)
        reported = time.monotonic()
        try:
            while await search.advance():
                if time.monotonic() - reported >= PROGRESS_S:
                    search.checkpoint()
                    yield search.progress()
                    reported = time.monotonic()
        finally:
            await search.close()
        yield search.result()


@dataclass(frozen=True, slots=True)
class _Expansion:
    """A step that is being written and judged."""

    node: int
    author: str
    task: asyncio.Task[tuple[Step | None, float | None] | None]


class _Search:
    """One request's search."""

    def __init__(self, session: Session, config: LEMCTSConfig) -> None:
        self._session, self._config = session, config
        state = session.state
        self._tree = Tree.load(state.get("tree", ()), session.names)
        self._done = int(state.get("iterations", 0))
        self._running: deque[_Expansion] = deque()
        self._stopped_by: str | None = None

    @property
    def _rules(self) -> Rules:
        config = self._config
        return Rules(
            exploration=config.c,
            n_child=config.n_child or len(config.members),
            epsilon=config.epsilon,
            max_depth=config.max_steps,
            backpropagation=config.backpropagation,
        )

    async def advance(self) -> bool:
        """Begins what can begin and adds what the oldest expansion gives; false when all are done.

        Results are added in the order in which they were begun, whatever the order of arrival, so
        the tree depends on the seed only.
        """
        while self._stopped_by is None and len(self._running) < self._config.parallel:
            if self._done + len(self._running) >= self._config.n_iter:
                break
            members = list(self._session.live)
            node = self._tree.select(members, self._rules)
            if node is None:
                break
            author = self._tree.writer(node, members, self._session.query.seed)
            self._tree.begin(node, author)
            task = asyncio.create_task(self._expand(node, author))
            self._running.append(_Expansion(node, author, task))
        if not self._running:
            return False
        oldest = self._running[0]
        await asyncio.wait((oldest.task,))
        self._running.popleft()
        try:
            result = oldest.task.result()
        except BudgetSpent as spent:
            self._stopped_by = f"budget_{spent.which}"
            result = None
        if result is None:
            self._tree.abandon(oldest.node, oldest.author, tried=False)
        else:
            self._done += 1
            self._add(oldest.node, oldest.author, *result)
        return True

    async def _expand(self, node: int, author: str) -> tuple[Step | None, float | None] | None:
        """A step by one member and its reward. No step: the member has nothing to add. No reward: a
        node with this step exists, or no window holds the chain. ``None``: the member failed."""
        tree, session, config = self._tree, self._session, self._config
        path, texts = tree.text(node), [step.text for step in tree.path(node)]
        likely = tree.likely(node)
        written = await session.each(
            lambda member: write(session, member, path, config, guess=likely), [author]
        )
        if author not in written:
            return None
        step = written[author]
        if step is None or tree.find(node, step.text, step.final) is not None:
            return step, None
        return step, await value_of(session, texts, step)

    def _add(self, node: int, author: str, step: Step | None, reward: float | None) -> None:
        """What an expansion means for the tree."""
        tree = self._tree
        twin = None if step is None else tree.find(node, step.text, step.final)
        if twin is not None:  # perhaps added while the step was judged
            tree.revisit(twin, author, self._rules)
        elif step is None or reward is None:
            tree.abandon(node, author)
        else:
            ended = {"finished": step.finished, "final": step.final}
            tree.grow(node, author, step.text, reward, self._rules, **ended)

    def checkpoint(self) -> None:
        """Stores the search in the state for another coordinator; as text, which is cheap to copy
        between checkpoints."""
        self._session.state["tree"] = json.dumps(self._tree.dump())
        self._session.state["iterations"] = self._done

    def progress(self) -> Progress:
        rank = self._config.rank
        ends = self._tree.finished(rank)
        figures = {"steps": float(len(self._tree.nodes) - 1), "answers": float(len(ends))}
        if ends:
            figures["best"] = self._tree.answer_value(ends[0], rank)
        return Progress(self._done, self._config.n_iter, figures)

    def result(self) -> SearchResult:
        best = self._tree.best(self._config.rank)
        self._session.state["tree"] = copy.deepcopy(self._tree.dump())
        self._session.state["iterations"] = self._done
        self._session.state["end"] = best.id
        lines = tuple(map(_line, self._tree.path(best.id)))
        return SearchResult(lines, best.finished, self._stopped_by)

    async def close(self) -> None:
        """Cancels running expansions, when the caller has left or another expansion has failed."""
        tasks = [expansion.task for expansion in self._running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _line(node: Node) -> Line:
    return Line(node.text, node.authors[0], node.reward, node.final)

"""env -> act -> env: acting without learning, for evaluations, videos and held-out episodes. It disturbs no run.

Sizes: n environments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map  # noqa: PLC2701 - torch's own, and it has no other door
from wm_core import draws
from wm_core.errors import UserError
from wm_core.learner import Learner
from wm_core.types import Carry

from wm_run.episodes import Episode, outcomes_of, score_of
from wm_run.loop import Environments
from wm_run.stop import say

LONGEST = 200_000  # steps of an episode in an evaluation; Atari's are cut at 27,000, and some environments never end


def evaluate(
    agent: Learner,
    envs: Environments,
    *,
    episodes: int,
    seed: int,
    mode: bool = False,
    carry: Carry = None,
    go_on: Callable[[], bool] = lambda: True,
    say: Callable[[str], None] = say,
) -> list[Episode]:
    """`episodes` episodes in these environments, learning nothing and disturbing nothing.

    Each environment plays its share, whatever the episodes' lengths, for whoever takes the first to end prefers short
    ones. A memory that outlives episodes goes on within one environment. Draws depend on `seed` alone. Fewer episodes
    come back where `go_on`, asked at every step, says no, or where one has not ended after `LONGEST` steps. An episode
    that a fault of its environment cuts short has no score; it is told, and another is played.
    """
    n = envs.num_envs
    share = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    results: list[list[Episode]] = [[] for _ in range(n)]
    score, length = np.zeros(n), np.zeros(n, np.int64)
    for step in rollout(agent, envs, seed=seed, mode=mode, carry=carry, say=say):
        score = np.where(step["first"], 0.0, score + score_of(envs, step))
        length = np.where(step["first"], 0, length + 1)
        for i in np.flatnonzero(step["last"] & ~envs.cut).tolist():
            if len(results[i]) < share[i]:
                results[i].append(Episode(float(score[i]), int(length[i]), outcomes_of(envs, step, i)))
        if all(len(done) == wanted for done, wanted in zip(results, share, strict=True)):
            break
        if length.max() >= LONGEST or not go_on():
            break
    return [result for each in results for result in each]


def remembered(carry: Carry, n: int, rows: int = 1) -> Carry:
    """A copy of what m environments left in a carry, for n others: each gets that of one of them, in turn.

    rows: how many an environment has in the carry, side by side: those of a team's agents stay together, and in order.

    >>> remembered({"key": torch.tensor([[1.0], [2.0]])}, 3)["key"].tolist()
    [[1.0], [2.0], [1.0]]
    >>> remembered({"key": torch.tensor([1.0, 1.5, 2.0, 2.5])}, 3, rows=2)["key"].tolist()
    [1.0, 1.5, 2.0, 2.5, 1.0, 1.5]
    """

    def again(x: Tensor) -> Tensor:
        each = x.unflatten(0, (-1, rows))
        return each[torch.arange(n, device=x.device) % len(each)].flatten(0, 1)

    return tree_map(again, carry)


def rows_of(agent: Learner) -> int:
    """How many rows of a carry one environment has."""
    return next((len(leaf) for leaf in tree_leaves(agent.initial(1)) if leaf is not None), 1)


def check_carry(agent: Learner, carry: Carry, environments: int = 0) -> None:
    """Raises UserError for a carry that this agent cannot go on from, as where an option has changed its memory.

    environments: how many left it, where that is known: the rows of one must be as many as the agent has for it, or what an
    agent of a team remembered would be taken for another's. An axis on which an empty memory has nothing grows while acting, as STORM's window does, and may have any size.
    """
    empty, kept = (
        [tuple(leaf.shape[1:]) for leaf in tree_leaves(one) if leaf is not None] for one in (agent.initial(1), carry)
    )
    rows = [len(leaf) for leaf in tree_leaves(carry) if leaf is not None] if environments else []
    fits = len(empty) == len(kept) and all(count == environments * rows_of(agent) for count in rows)
    fits = fits and all(
        len(mine) == len(theirs) and all(m in (0, n) for m, n in zip(mine, theirs, strict=True))
        for mine, theirs in zip(empty, kept, strict=True)
    )
    if not fits:
        raise UserError(
            "what training remembered does not fit this agent's memory: begin with an empty one (--memory empty)"
        )


def rollout(
    agent: Learner,
    envs: Environments,
    *,
    seed: int,
    mode: bool = False,
    carry: Carry = None,
    say: Callable[[str], None] = say,
) -> Iterator[dict[str, Any]]:
    """Play for ever: records of n environments with the notes of acting, each (n, ...). The generator is put back. What
    became of environments on the way is told."""
    step = envs.reset(seed)
    carry = agent.initial(envs.num_envs) if carry is None else carry
    source = draws.Generator(seed, agent.device)
    while True:
        with drawing_from(agent, source):
            carry, action, notes = agent.act(carry, step, mode)
        for sentence in envs.take_faults():
            say(sentence)
        yield {**step, **notes}
        step = envs.step(action)


@contextmanager
def drawing_from(agent: Learner, source: draws.Generator) -> Iterator[None]:
    """The agent draws from another generator inside; torch's global ones are put back too."""
    kept, agent.source = agent.source, source
    devices = [agent.device] if agent.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        agent.source = kept

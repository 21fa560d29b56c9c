"""Episodes that no training saw -> the world model's losses on them, while it learns. It disturbs no run.

Each stream is gone through in order, in rows as long as those that are learned from. Who keeps notes of the past begins a
row with what it knew at the end of the one before, as it would while acting; who keeps none begins every row anew, as it
does in training. Sizes: n streams, T steps of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core import draws, names
from wm_core.agent import Agent
from wm_core.types import Batch, Index

from wm_run.rollout import drawing_from
from wm_run.stand_in import StandIn

SEED = 0  # of whatever is drawn: the same every time


@torch.no_grad()
def held_out(agent: Agent, envs: StandIn, *, length: int, steps: int) -> dict[str, float]:
    """Mean losses by name, `held_out/loss/...`, over about the first `steps` held-out steps; {} where there is no row of them.

    In eval mode, and nothing is learned, noted or drawn from the run's own generators.
    """
    training, sums, weights = agent.training, dict[str, Tensor](), list[Tensor]()
    agent.eval()
    carry: Any = None
    with drawing_from(agent, draws.Generator(SEED, agent.device)), draws.drawing(agent.source), agent.computing():
        for row in rows(envs, length, steps):
            if begins := carry is None or not agent.stores:
                carry = agent.initial(len(row["first"]))
            batch = agent.ready(agent.to_device(_batch(row, begins)))
            losses, trace = agent.world.measured(carry, batch.steps)
            carry, weight = trace.carry, batch.steps["weight"].sum()
            weights.append(weight)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.float().mean() * weight
    agent.train(training)
    if not weights:
        return {}
    shown, whole = names.logged(sums), torch.stack(weights).sum()
    means = (torch.stack(list(sums.values())) / whole).tolist()
    return {f"held_out/loss/{shown[name]}": mean for name, mean in zip(sums, means, strict=True)}


def rows(envs: StandIn, length: int, steps: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Successive rows (n, T, ...) of the held-out part, `steps` in all or as many as whole rows there are; of one that is
    shorter than a row, the whole."""
    length = min(length, envs.recording.part("held_out").position)
    kept: dict[str, list[NDArray[Any]]] = {}
    waiting = given = 0
    for block in envs.blocks("held_out"):
        for name, value in block.items():
            kept.setdefault(name, []).append(value)
        waiting += block["first"].shape[1]
        if waiting < length:
            continue
        joined = {name: np.concatenate(pieces, 1) for name, pieces in kept.items()}
        for begin in range(0, waiting - length + 1, length):
            yield {name: value[:, begin : begin + length] for name, value in joined.items()}
            given += length * len(block["first"])
            if given >= steps:
                return
        waiting %= length
        kept = {name: [value[:, value.shape[1] - waiting :]] for name, value in joined.items()}


def _batch(row: Mapping[str, NDArray[Any]], begins: bool) -> Batch:
    """A row as a replay would give it without its past: nothing is known before one that `begins`."""
    steps = {name: torch.from_numpy(value.copy()) for name, value in row.items()}
    steps |= {"weight": torch.ones(steps["first"].shape), "reset": steps["first"].clone()}
    steps["reset"][:, 0] |= begins
    nowhere = torch.zeros(len(steps["first"]), dtype=torch.int64)
    return Batch(steps, None, Index(nowhere, nowhere))

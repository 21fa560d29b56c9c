"""(B, T, N, ...) -> rows (B*N, T, ...) and back: a batch of teams as rows of agents, row b*N + i.

Sizes: B batch, T time, N agents, P past.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from einops import rearrange, repeat
from torch import Tensor
from wm_core import Batch, Past, Steps

STATE = "state"  # the entry of the team's global state, (B, T, S): privileged, for centralised critics


def rows_of(value: Tensor) -> Tensor:
    """(B, T, N, ...) -> (B*N, T, ...), row b*N + i.

    >>> import torch
    >>> rows_of(torch.arange(6).view(1, 3, 2)).tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    return rearrange(value, "b t n ... -> (b n) t ...")


def agents_of(value: Tensor, agents: int) -> Tensor:
    """(B*N, T, ...) -> (B, T, N, ...), the inverse of `rows_of`."""
    return rearrange(value, "(b n) t ... -> b t n ...", n=agents)


def repeated(value: Tensor, agents: int) -> Tensor:
    """What is the team's, (B, ...), for each of its agents: (B*N, ...)."""
    return repeat(value, "b ... -> (b n) ...", n=agents)


def fold_steps(steps: Steps, agents: int, *, state: bool = False) -> Steps:
    """Steps of teams as steps of agents, in the order of `rows_of`.

    Entries (B, T) are the team's (first, last, terminal, weight, reset) and repeated, all others have the agents at axis
    2. `state` says whether the global state (B, T, S) is repeated for every agent too; else it is left out, since few read
    it and it is large. Raises ValueError for an entry that is neither.
    """
    given = {name: value for name, value in steps.items() if name != STATE}
    folded = {name: _folded(name, value, agents) for name, value in given.items()}
    return folded | ({STATE: repeated(steps[STATE], agents)} if state else {})


def fold(batch: Batch, *, state: bool = False) -> Batch:
    """A batch of teams as a batch of agents: steps by `fold_steps`, and what was stored of the past likewise.

    How many agents there are is read off the reward, (B, T, N). The index stays that of the teams: it says where replay
    takes notes back, which `unfold` gives in its shape.
    """
    reward = batch.steps["reward"]
    if reward.dim() != 3:
        raise ValueError(f"a batch of teams has rewards (B, T, N), not {tuple(reward.shape)}: it has no agents to fold")
    agents, past = reward.shape[2], batch.past
    if past is not None:
        past = Past(
            {name: _folded(name, value, agents) for name, value in past.stored.items()},
            rows_of(past.action),
            repeated(past.first, agents),
            repeated(past.valid, agents),
        )
    return replace(batch, steps=fold_steps(batch.steps, agents, state=state), past=past)


def unfold(notes: Mapping[str, Tensor], agents: int) -> dict[str, Tensor]:
    """Notes of rows, each (B*N, T, ...), as notes of teams (B, T, N, ...): what replay keeps and `fold` takes."""
    return {name: agents_of(value, agents) for name, value in notes.items()}


def _folded(name: str, value: Tensor, agents: int) -> Tensor:
    if value.dim() == 2:
        return repeated(value, agents)
    if value.shape[2] != agents:
        raise ValueError(
            f"{name!r} of shape {tuple(value.shape)} has not {agents} agents at axis 2 and is no team's (B, T)"
        )
    return rows_of(value)

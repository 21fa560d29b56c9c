"""Recorded rows, the values of their states -> what PPO learns from: advantages, targets, and how much each record counts.

A record holds what arrived together, so the action chosen at record t, and what it earned, are in record t + 1. Where an
episode begins there, nothing was chosen at t: it was the last record of the episode before.
Sizes: B environments, T transitions, N agents, L steps of a piece, R = B T / L pieces.
"""

from __future__ import annotations

import torch
from torch import Tensor
from wm_core import names
from wm_core.ranks import mean
from wm_core.returns import gae
from wm_core.types import Steps
from wm_marl.ppo import standardised
from wm_marl.rows import agents_of, repeated, rows_of

TINY = 1e-8  # of a mean weight, where everybody is dead


def advantages(steps: Steps, value: Tensor, *, discount: float, lam: float) -> Tensor:
    """Generalised advantages (B, T, N) of rows of T + 1 records; value (B, T + 1, N) in units of the reward.

    A truncation is continued with the value of what was seen last, a termination with 0, and nothing crosses an episode's
    end. What comes out at an episode's last record means nothing: there is no transition, see `weights`.
    """
    agents = value.shape[2]
    cont = discount * (~steps["terminal"]).to(value.dtype)
    decay = lam * (~steps["last"][:, 1:]).to(value.dtype)
    found = gae(rows_of(steps["reward"]), repeated(cont, agents), rows_of(value), repeated(decay, agents))
    return agents_of(found, agents)


def weights(steps: Steps, *, dead_values: bool) -> tuple[Tensor, Tensor]:
    """How much each transition counts for the policy and for the critic, each (B, T, N) of mean 1.

    Where an episode begins with the next record, there is no transition; a dead agent chooses nothing, and is worth
    something to learn with `dead_values` alone.
    """
    alive = steps["alive"][:, :-1]
    there = (~steps["first"][:, 1:, None]).expand_as(alive)
    acting = (there & alive).to(steps["reward"].dtype)
    valued = there.to(acting.dtype) if dead_values else acting
    return acting / mean(acting).clamp(min=TINY), valued / mean(valued).clamp(min=TINY)


def taken(
    steps: Steps, value: Tensor, advantage: Tensor, target: Tensor, shares: tuple[Tensor, Tensor], least: float
) -> Steps:
    """Everything about T transitions by name, each (B, T, ...): what was seen, chosen and noted, and what came of it.

    value and target are in the critic's units, (B, T, N); least: the floor under the advantages' spread.
    """
    before = {name: entry[:, :-1] for name, entry in steps.items()}
    policy, critic = shares
    return before | {
        "action": steps["action"][:, 1:],
        "old": before[names.NOTE + "log_prob"],
        "advantage": standardised(advantage, policy, least),
        "policy_share": policy,
        "value": value,
        "target": target,
        "critic_share": critic,
    }


def pieces(value: Tensor, length: int) -> Tensor:
    """(B, T, ...) -> (R, L, ...), the pieces of a row one after the other.

    >>> pieces(torch.arange(8).view(2, 4), 2).tolist()
    [[0, 1], [2, 3], [4, 5], [6, 7]]
    """
    return value.unflatten(1, (-1, length)).flatten(0, 1)


def begun(known: Tensor, before: Tensor, length: int) -> Tensor:
    """What was known before each piece: known (B, T + 1, ...) after each record, before (B, ...) ahead of the row -> (R, ...).

    >>> begun(torch.arange(1, 6).view(1, 5), torch.tensor([0]), 2).tolist()  # before record 0, and before record 2
    [0, 2]
    """
    return torch.cat([before[:, None], known[:, :-2]], 1)[:, ::length].flatten(0, 1)

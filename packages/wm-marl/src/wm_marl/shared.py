"""Dreams of every agent for itself -> what the team is credited with: one reward, one continuation.

Sizes: M rows of agents, those of one moment side by side, H horizon.
"""

from __future__ import annotations

from dataclasses import replace

from einops import reduce, repeat
from torch import Tensor
from wm_core import Dream


def team_mean(value: Tensor, agents: int) -> Tensor:
    """(M, ...) -> (M, ...), every agent's replaced by the mean of its team.

    >>> import torch
    >>> team_mean(torch.tensor([1.0, 3.0, 10.0, 20.0]), agents=2).tolist()
    [2.0, 2.0, 15.0, 15.0]
    """
    return repeat(reduce(value, "(m n) ... -> m ...", "mean", n=agents), "m ... -> (m n) ...", n=agents)


def shared(dream: Dream, agents: int, *, cont: bool) -> Dream:
    """The dream with the mean of what its agents predict of the team's reward, and with `cont` of its continuation.

    Where each agent dreams by itself, each predicts the reward of all from what it alone knows; the mean is the team's
    better guess (MAMBA's way). `cont` is for continuations that were learned from the team's end, not from an agent's own.
    """
    found = replace(dream, reward=team_mean(dream.reward, agents))
    return replace(found, cont=team_mean(dream.cont, agents)) if cont else found

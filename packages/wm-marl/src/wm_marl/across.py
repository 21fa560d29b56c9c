"""Rows -> teams -> a module that mixes agents -> rows: the only way in which one row learns of another.

Sizes: B teams (or moments of teams), N agents, D features.
"""

from __future__ import annotations

from torch import Tensor, nn


class AcrossAgents(nn.Module):
    """A module on tokens (..., N, D) as a module on rows, agents of one team and moment being neighbours there.

    rows: the axis of the rows. -2 is where an RSSM has them when it asks its prior, both for (T, rows, D) of a batch and
    for (rows, D) of a dream; 0 is where heads see them, (rows, T, D) and (rows, D), and a prior of `Parallel` too.
    Raises ValueError where N divides the rows not: what is on that axis are no agents then.

    >>> import torch
    >>> class Mean(nn.Module):
    ...     def forward(self, tokens):
    ...         return tokens.mean(-2, keepdim=True).expand_as(tokens)
    >>> AcrossAgents(Mean(), agents=2)(torch.tensor([[1.0], [3.0], [10.0], [20.0]])).flatten().tolist()
    [2.0, 2.0, 15.0, 15.0]
    """

    def __init__(self, module: nn.Module, agents: int, *, rows: int = -2) -> None:
        super().__init__()
        if rows not in (0, -2):
            raise ValueError(f"rows lie at axis 0 or -2, not {rows}")
        self.module, self.agents, self.rows = module, agents, rows

    def forward(self, x: Tensor) -> Tensor:
        """x (..., B*N, D) -> (..., B*N, E), or with rows at axis 0 (B*N, ..., D) -> (B*N, ..., E)."""
        if self.rows:
            found: Tensor = self.module(teams_of(x, self.agents, self.rows))  # (..., B, N, D)
            return found.flatten(-3, -2)
        return joined(self.module(apart(x, self.agents)))


def teams_of(x: Tensor, agents: int, rows: int) -> Tensor:
    """The axis of the rows as two, teams and agents. Raises ValueError where N divides the rows not."""
    if x.shape[rows] % agents:
        raise ValueError(f"{x.shape[rows]} rows are no teams of {agents}: {tuple(x.shape)}")
    return x.unflatten(rows, (-1, agents))


def apart(rows: Tensor, agents: int) -> Tensor:
    """Rows at axis 0 as teams of tokens: (B*N, ..., D) -> (B, ..., N, D), a view.

    >>> import torch
    >>> apart(torch.arange(8).view(4, 2, 1), agents=2)[1, 0, :, 0].tolist()  # the second team at the first moment
    [4, 6]
    """
    return teams_of(rows, agents, 0).movedim(1, -2)


def joined(tokens: Tensor) -> Tensor:
    """The inverse: (B, ..., N, D) -> (B*N, ..., D)."""
    return tokens.movedim(-2, 1).flatten(0, 1)

"""Starts of dreams in the order (b, t, i): agents of one moment are neighbours, as modules that couple them expect.

A dynamics gives its starts in the order (row, t) with row = b*N + i, where the neighbours of an agent are its own other
moments: coupled so, strangers would be mixed and nothing would say so. `Interleaved` reorders them, and nobody else may.
What reads a dream by rows (health, a replay value) is given it back as `by_rows`.

Sizes: B teams, N agents, K the last steps of every row, M = B*K*N.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn
from wm_core import Carry, Dream, Dynamics, Latent, Past, Start, Trace
from wm_core.contracts import Remembering
from wm_core.types import Recollection

tree_map = torch.utils._pytree.tree_map  # noqa: SLF001 - the only walk torch offers
Whole = TypeVar("Whole", Tensor, Latent, Dream)


def by_moments(value: Tensor, agents: int, last: int) -> Tensor:
    """Rows (b*N + i)*K + t -> rows (b*K + t)*N + i: (M, ...).

    >>> import torch
    >>> by_moments(torch.tensor([0, 1, 2, 10, 11, 12]), agents=2, last=3).tolist()  # 10*i + t
    [0, 10, 1, 11, 2, 12]
    """
    return rearrange(value, "(b n t) ... -> (b t n) ...", n=agents, t=last)


def by_rows(value: Whole, agents: int, last: int) -> Whole:
    """The inverse of `by_moments`, of a tensor (M, ...), a latent or a whole dream.

    `last` is how many steps of every row the dream started from: all of a row's, or `dream_last`.
    """

    def reordered(leaf: Tensor) -> Tensor:
        return rearrange(leaf, "(b t n) ... -> (b n t) ...", n=agents, t=last)

    found: Whole = tree_map(reordered, value)
    return found


class Interleaved(nn.Module):
    """Any `Dynamics` over rows of agents, its starts in the order of `by_moments`; all else is the dynamics' own.

    With one agent it is that dynamics. Raises TypeError where a start holds anything but tensors with rows first, which
    cannot be reordered from here.

    >>> import torch
    >>> from wm_core import RSSM
    >>> rssm = RSSM(deter=16, stoch=(4, 3), embed=5, action=2, hidden=8, blocks=2)
    >>> dynamics, rows = Interleaved(rssm, agents=3), 2 * 3
    >>> embed, reset = {"obs": torch.randn(rows, 6, 5)}, torch.zeros(rows, 6, dtype=torch.bool)
    >>> trace = dynamics.observe(dynamics.initial(rows), embed, torch.zeros(rows, 6, 2), reset)
    >>> start, latent = dynamics.starts(trace, last=4)
    >>> torch.equal(latent.deter[1], trace.latent.deter[1, 2])  # agent 1 of team 0, at the first of the last four
    True
    """

    def __init__(self, dynamics: Dynamics, agents: int) -> None:
        super().__init__()
        self.dynamics, self.agents = dynamics, agents
        self.widths, self.stores = dynamics.widths, dynamics.stores

    def initial(self, *lead: int) -> Carry:
        return self.dynamics.initial(*lead)

    def prefill(self, carry: Carry, past: Past) -> Carry:
        return self.dynamics.prefill(carry, past)

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Trace:
        return self.dynamics.observe(carry, embed, action, reset)

    def stored(self, trace: Trace) -> dict[str, Tensor]:
        return self.dynamics.stored(trace)

    def imagine(self, start: Start, action: Tensor) -> tuple[Start, Latent]:
        return self.dynamics.imagine(start, action)

    def starts(self, trace: Trace, last: int) -> tuple[Start, Latent]:
        """The last `last` steps of a trace as starts of imagination: row (b*last + t)*N + i."""
        rows = last * len(trace.latent.deter)

        def reordered(leaf: object) -> Tensor | None:
            if leaf is None:
                return None
            if not isinstance(leaf, Tensor) or leaf.shape[:1] != (rows,):
                raise TypeError(
                    f"a start of {type(self.dynamics).__name__} holds {type(leaf).__name__} and not tensors of {rows} rows "
                    "alone, so that its agents cannot be put beside each other: take a dynamics such as RSSM"
                )
            return by_moments(leaf, self.agents, last)

        start, latent = self.dynamics.starts(trace, last)
        return tree_map(reordered, start), tree_map(reordered, latent)

    def left(self, carry: Carry) -> float:
        return self.dynamics.left(carry)

    def prior_logits(self, deter: Tensor) -> Tensor:
        return self.dynamics.prior_logits(deter)

    def recalled(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Recollection | None:
        """Which past steps each agent recalls, of its own, (B*N, T, K) in the order of rows; None where the dynamics recalls nothing."""
        inner = self.dynamics
        return inner.recalled(carry, embed, action, reset) if isinstance(inner, Remembering) else None

"""How far back a past frame still matters: by gradient, and by leaving out all that is older.

Sizes: B rows, C context, D deterministic state, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

DIRECTIONS = 4


def powers(context: int) -> list[int]:
    """Lengths of a past that are tried: 1, 2, 4, ... below the context, and the context itself.

    >>> powers(12)
    [1, 2, 4, 8, 12]
    """
    return [2**k for k in range(context.bit_length()) if 2**k < context] + [context]


def gradient(
    state: Callable[[Mapping[str, Tensor]], Tensor],
    embed: Mapping[str, Tensor],
    directions: int = DIRECTIONS,
    seed: int = 0,
) -> Tensor:
    """sqrt of the mean over rows of |d state / d embed_t|^2, the Frobenius norm of the Jacobian of the state after the
    context (B, D) by what was seen at each of its steps, as found along `directions` random signs: (C,), oldest first.

    state must be a function of the embeddings (B, C, E) alone: the same draws at each call. An embedding without a path to
    the state counts nothing.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in embed.items()}
    with torch.enable_grad():
        found = state(leaves)
    draw = torch.Generator().manual_seed(seed)
    total = torch.zeros(next(iter(leaves.values())).shape[1], dtype=torch.float64)
    for k in range(directions):
        signs = torch.randint(2, found.shape, generator=draw).to(found) * 2 - 1
        grads = torch.autograd.grad(
            found, list(leaves.values()), signs, retain_graph=k + 1 < directions, allow_unused=True
        )
        for grad in grads:
            if grad is not None:
                total += grad.double().square().sum(-1).mean(0).cpu()
    return (total / directions).sqrt()


def shares(norms: Sequence[float]) -> list[float | None]:
    """Norms as shares of their sum, None where all are 0: of states in units of their own only these compare.

    >>> shares([1.0, 3.0])
    [0.25, 0.75]
    """
    total = sum(norms)
    return [one / total if total else None for one in norms]

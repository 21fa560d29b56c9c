"""The model's step as the paper writes it, one line an equation and above each line its shape: read these first.

h' = GRU(h, z, a), z' ~ q(h', e): `posterior_scan` is the loop over time, `block_gru` and `posterior` are its two
networks, and what follows them are the layers those are made of. The fast paths compute the same, in fewer calls and in
another order; tests/test_plain.py holds them to these lines, values and gradients, in float64.

| here | what runs |
|---|---|
| `posterior_scan` | `wm_core.fast.scan.posterior_scan` |
| `block_gru` | `wm_core.blocks.BlockGRU`, from `drive` or by `advance` |
| `posterior` | `wm_core.posterior.Posterior` |
| `layer`, `norm_silu` | `wm_core.blocks.MLP`, `wm_core.norm.norm_silu` |
| `linear`, `blocks` | `wm_core.fast.product` |
| `up_convolution` | `wm_core.images.UpConv` |
| `accumulate` | `wm_core.returns.accumulate` |

Sizes: N rows, T steps, B rows of a batch, R branches (one, or two that share their state), A action, E embed, D deter of a
branch, H hidden, G blocks, S x K stochastic of all branches together, W = R * D + S * K the whole state, I in, O out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wm_core.distributions import sample_mixed

if TYPE_CHECKING:  # they import the fast paths, and those this file
    from wm_core.blocks import MLP, BlockGRU
    from wm_core.images import UpConv
    from wm_core.norm import RMSNorm
    from wm_core.posterior import Posterior


def posterior_scan(
    branches: Sequence[Any], state: Tensor, driven: Tensor, seen: Tensor, keep: Tensor, noise: Tensor, unimix: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The posterior over T steps, for any cell. Acts take this very loop, and so do cells that are no `BlockGRU`.

    Args:
        branches: each has `cell(deter, (all deter, stoch), driven)` and `posterior(deter, seen)`.
        state: (B, W) before the first step.
        driven: (T, B, R, D), what `cell.drive(action)` gave; with `block_gru` as cell the action itself, (T, B, R, A).
        seen: (T, B, R, H), what `posterior.drive(embed)` gave; with `posterior` above the embedding, (T, B, R, E).
        keep: (T, B, 1), 0 at a reset, else 1.
        noise: (T, B, S, K), exponential.
        unimix: share of the uniform in what is sampled from.

    Returns:
        deter (T, B, R*D), stoch (T, B, S, K) one-hot with straight-through gradients, and the probabilities (T, B, S, K)
        of the posterior before the uniform is mixed in.
    """
    width = state.shape[1] - noise.shape[2] * noise.shape[3]
    deters, stochs, found = [], [], []
    for t in range(len(keep)):
        # (B, W): nothing of an earlier episode
        state = state * keep[t]
        # (B, R*D), (B, S*K)
        deter, stoch = state[:, :width], state[:, width:]
        # R times (B, D)
        own = deter.chunk(len(branches), -1)
        # R times (B, D): each branch goes on from its own deter, and sees all of the state
        new = [branch.cell(own[r], (deter, stoch), driven[t, :, r]) for r, branch in enumerate(branches)]
        # R times (B, S*K / R)
        logits = [branch.posterior(new[r], seen[t, :, r]) for r, branch in enumerate(branches)]
        # (B, S, K)
        probs = F.softmax(torch.cat(logits, -1).unflatten(-1, noise.shape[2:]).to(state.dtype), -1)
        # (B, S, K): one-hot
        sample = sample_mixed(probs, noise[t], unimix)
        # (B, R*D)
        deter = torch.cat(new, -1)
        # (B, W)
        state = torch.cat([deter, sample.flatten(-2)], -1)
        deters.append(deter)
        stochs.append(sample)
        found.append(probs)
    return torch.stack(deters), torch.stack(stochs), torch.stack(found)


def block_gru(cell: BlockGRU, deter: Tensor, state: Sequence[Tensor], action: Tensor) -> Tensor:
    """deter (N, D), parts of the state (N, width) and action (N, A) -> the next deter (N, D), by a BlockGRU's weights.

    >>> from wm_core.blocks import BlockGRU
    >>> cell = BlockGRU(deter=16, state=(16, 6), action=3, hidden=8, blocks=4)
    >>> deter, stoch, action = torch.randn(2, 16), torch.randn(2, 6), torch.randn(2, 3)
    >>> fast = cell.advance(deter, (deter, stoch), action)
    >>> torch.allclose(block_gru(cell, deter, (deter, stoch), action), fast, atol=1e-5)
    True
    """
    apart = (cell.blocks, -1)
    networks: list[Any] = [*cell.inputs, cell.action]
    # three times (N, H): deter, stoch and action, each through a layer of its own
    views = [layer(network, part) for network, part in zip(networks, [*state, action], strict=True)]
    # (N, G, D/G): the slice of deter that is a block's own
    own = deter.unflatten(-1, apart)
    # (N, G, 3H): what all blocks share
    shared = torch.cat(views, -1)[:, None].expand(-1, cell.blocks, -1)
    # (N, G, D/G)
    mixed = blocks(
        torch.cat([own, shared], -1), cell.weight.transpose(0, 1), cell.bias.unflatten(0, (cell.blocks, 1, -1))
    )
    # (N, D): the norm is over all blocks
    hidden = norm_silu(mixed.flatten(-2), cell.norm)
    # (N, G, 3D/G)
    gates = blocks(
        hidden.unflatten(-1, apart),
        cell.gates.weight.transpose(0, 1),
        cell.gates.bias.unflatten(0, (cell.blocks, 1, -1)),
    )
    # three times (N, G, D/G)
    reset, cand, update = gates.chunk(3, -1)
    # (N, G, D/G)
    cand = torch.tanh(torch.sigmoid(reset) * cand)
    # (N, G, D/G): the -1 lets a new cell keep most of its state
    update = torch.sigmoid(update - 1)
    # (N, D)
    return (update * cand + (1 - update) * own).flatten(-2)


def posterior(network: Posterior, deter: Tensor, embed: Tensor) -> Tensor:
    """deter (N, D), embed (N, E) -> logits (N, S*K), by a Posterior's weights."""
    # (N, H)
    hidden = layer(network.mix, torch.cat([deter, embed], -1))
    # (N, S*K)
    return linear(hidden, network.out.weight, network.out.bias)


def layer(network: MLP, x: Tensor) -> Tensor:
    """An MLP of one layer, [Linear, RMSNorm, SiLU]: x (..., I) -> (..., O)."""
    first: Any = network[0]
    norm: Any = network[1]
    return norm_silu(linear(x, first.weight, first.bias), norm)


def norm_silu(x: Tensor, norm: RMSNorm) -> Tensor:
    """SiLU(x / rms(x) * scale): (..., C) -> (..., C)."""
    # (..., 1)
    rms = torch.sqrt(x.square().mean(-1, keepdim=True) + norm.eps)
    # (..., C)
    y = x / rms * norm.scale
    # (..., C)
    return y * torch.sigmoid(y)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., I), weight (O, I), bias (O,) -> (..., O)."""
    # (..., O)
    out = x @ weight.mT
    return out if bias is None else out + bias


def blocks(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (N, G, I), weight (G, I, O), bias (G, 1, O) -> (N, G, O): every block is a linear layer that sees no other."""
    # G times (N, O)
    apart = [x[:, g] @ weight[g] + bias[g] for g in range(len(weight))]
    # (N, G, O)
    return torch.stack(apart, 1)


def up_convolution(network: UpConv, x: Tensor) -> Tensor:
    """Every pixel twice in height and width, then a 5x5 convolution: x (N, I, h, w) -> (N, O, 2h, 2w)."""
    # (N, I, 2h, 2w)
    large = x.repeat_interleave(2, -2).repeat_interleave(2, -1)
    # (N, O, 2h, 2w)
    return F.conv2d(large, network.weight, network.bias, padding=2)


def accumulate(base: Tensor, decay: Tensor, last: Tensor) -> Tensor:
    """R_t = base_t + decay_t R_{t+1} backwards from R_T = last (M, 1); base, decay and the result (M, T)."""
    returns, following = [], last[:, 0]
    for t in reversed(range(base.shape[1])):
        # (M,)
        following = base[:, t] + decay[:, t] * following
        returns.append(following)
    return torch.stack(returns[::-1], 1)

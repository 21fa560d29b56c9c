"""What agents say to each other and what a policy learns of a dream, in straight lines: read these first.

`block` and `transformer` are what `wm_marl.transformer` computes, `ppo` the losses of an epoch of `wm_marl.ppo.PPO`; the
tests hold the one to the other, values and gradients, in float64.
Sizes: N agents, D width, H heads, d = D / H; of a dream M rows, H horizon.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from wm_marl.transformer import AgentTransformer


def transformer(network: AgentTransformer, tokens: Tensor) -> Tensor:
    """One team's tokens (N, I) -> (N, D), by an AgentTransformer's weights."""
    # (N, D)
    x = tokens @ network.begin.weight.mT + network.begin.bias
    if network.identity is not None:
        # (N, D): who is who
        x = x + network.identity
    for one in network.blocks:
        x = block(one, x)
    return norm(network.norm, x)


def block(network: Any, x: Tensor) -> Tensor:
    """One team's tokens (N, D) -> (N, D), by a Block's weights: pre-norm attention, pre-norm MLP."""
    # three times (N, D)
    layer = network.queries_keys_values
    query, key, value = (norm(network.first, x) @ layer.weight.mT + layer.bias).chunk(3, -1)
    heard = []
    for q, k, v in zip(*(part.chunk(network.heads, -1) for part in (query, key, value)), strict=True):
        # (N, N): how much agent i listens to agent j
        weight = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)
        # (N, d)
        heard.append(weight @ v)
    # (N, D)
    x = x + torch.cat(heard, -1) @ network.out.weight.mT + network.out.bias
    inner, _, outer = network.mlp
    # (N, hidden)
    y = norm(network.second, x) @ inner.weight.mT + inner.bias
    # (N, hidden): GELU
    y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    # (N, D)
    return x + y @ outer.weight.mT + outer.bias


def norm(network: Any, x: Tensor) -> Tensor:
    """LayerNorm: (..., C) -> (..., C)."""
    # (..., C)
    centred = x - x.mean(-1, keepdim=True)
    # (..., C)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + network.eps) * network.weight + network.bias


def ppo(
    log_prob: Tensor, old: Tensor, entropy: Tensor, value: Tensor, reward: Tensor, cont: Tensor, number: Any
) -> tuple[Tensor, Tensor]:
    """What policy and critic are to gain from a dream, step by step: the policy's loss (0-d) and the critic's targets (M, H).

    Args:
        log_prob, old, entropy: (M, H) of the policy now, of the policy that dreamed, and of the policy now.
        value, reward, cont: (M, H+1), the value before the first epoch; the discount is in cont.
        number: has `lam`, `clip`, `entropy` and `least`.
    """
    rows, horizon = log_prob.shape
    advantage, weight = torch.zeros_like(old), torch.zeros_like(old)
    for m in range(rows):
        following: Any = 0.0
        for t in reversed(range(horizon)):
            # eq. 7, where r_t is what arrived with step t + 1
            delta = reward[m, t + 1] + cont[m, t + 1] * value[m, t + 1] - value[m, t]
            following = delta + number.lam * cont[m, t + 1] * following
            advantage[m, t] = following
        going: Any = 1.0
        for t in range(horizon):
            # whether step t of the dream is still in its episode
            going = going * cont[m, t]
            weight[m, t] = going
    # (M, H)
    targets = advantage + value[:, :-1]
    centre = (weight * advantage).sum() / weight.sum()
    spread = ((weight * (advantage - centre) ** 2).sum() / weight.sum()).sqrt()
    standard = (advantage - centre) / max(spread, number.least)
    loss: Any = 0.0
    for m in range(rows):
        for t in range(horizon):
            ratio = torch.exp(log_prob[m, t] - old[m, t])
            bounded = torch.clamp(ratio, 1 - number.clip, 1 + number.clip)
            # eq. 8
            gain = torch.minimum(ratio * standard[m, t], bounded * standard[m, t]) + number.entropy * entropy[m, t]
            loss = loss - weight[m, t] * gain
    return loss / weight.sum(), targets

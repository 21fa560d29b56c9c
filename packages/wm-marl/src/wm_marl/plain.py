"""What agents say to each other and what a policy learns of a dream, in straight lines: read these first.

`block` and `transformer` are what `wm_marl.transformer` computes, `mat` what `wm_marl.mat.MATPolicy` says of a team's actions,
`ppo` the losses of an epoch of `wm_marl.ppo.PPO`; the tests hold the one to the other, values and gradients, in float64.
Sizes: N agents, F features, A numbers of an action, D width, H heads, d = D / H; of a dream M rows, H horizon.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from wm_marl.mat import MATPolicy
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
    query, key, value = affine(network.queries_keys_values, norm(network.first, x)).chunk(3, -1)
    # (N, D)
    x = x + affine(network.out, listened(query, key, value, network.heads))
    # (N, D)
    return x + perceptron(network.mlp, norm(network.second, x))


def mat(policy: MATPolicy, features: Tensor, mask: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of each agent's choice (N,), given those before it, by a MATPolicy with one discrete action.

    features (N, F), mask (N, A) bool, action (N, A) one-hot, agents in the order in which they choose. An agent's turn is
    computed from the beginning; nothing is kept.
    """
    encoder: Any = policy.encoder
    decoder: Any = policy.decoder
    # (N, D)
    seen = gelu(affine(encoder.begin[1], norm(encoder.begin[0], features)))
    if encoder.identity is not None:
        # (N, D): who is who
        seen = seen + encoder.identity
    seen = norm(encoder.norm, seen)
    for one in encoder.blocks:
        # (N, D): all hear all
        seen = norm(one.first, seen + attended(one.attend, seen, seen))
        seen = norm(one.second, seen + perceptron(one.mlp, seen))
    log_probs, entropies = [], []
    for i in range(len(action)):
        # (i + 1, A + 1): a start, and what was chosen before
        chosen = torch.zeros(i + 1, 1 + action.shape[1], dtype=action.dtype)
        chosen[0, 0] = 1
        chosen[1:, 1:] = action[:i]
        # (i + 1, D)
        x = norm(decoder.begin[2], gelu(chosen @ decoder.begin[0].weight.mT))
        for one in decoder.blocks:
            # (i + 1, D): the stream of actions by itself, then as each agent asks it
            x = norm(one.first, x + attended(one.own, x, x, causal=True))
            x = norm(one.second, seen[: i + 1] + attended(one.cross, seen[: i + 1], x, causal=True))
            x = norm(one.third, x + perceptron(one.mlp, x))
        # (A,): of agent i alone
        last = norm(decoder.end[2], gelu(affine(decoder.end[0], x[i])))
        probs = torch.softmax(affine(decoder.head.out, last), -1)
        unimix = decoder.head.unimix
        # (A,): the uniform's share, then what is allowed
        probs = ((1 - unimix) * probs + unimix / len(probs)) * mask[i]
        probs = probs / probs.sum()
        log_probs.append((probs * action[i]).sum().log())
        entropies.append(-sum(p * p.log() for p in probs if p > 0))
    return torch.stack(log_probs), torch.stack(entropies)


def attended(network: Any, asking: Tensor, source: Tensor, causal: bool = False) -> Tensor:
    """What tokens `asking` (N, D) hear of tokens `source` (N, D), by an Attention's weights: (N, D)."""
    key, value = affine(network.keys_values, source).chunk(2, -1)
    return affine(network.out, listened(affine(network.query, asking), key, value, network.heads, causal))


def listened(query: Tensor, key: Tensor, value: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Attention of each head, side by side: three times (N, D) -> (N, D)."""
    heard = []
    for q, k, v in zip(*(part.chunk(heads, -1) for part in (query, key, value)), strict=True):
        # (N, N): how much agent i listens to agent j
        score = q @ k.mT / math.sqrt(q.shape[-1])
        if causal:
            score = score.masked_fill(torch.ones_like(score).triu(1).bool(), -torch.inf)
        # (N, d)
        heard.append(torch.softmax(score, -1) @ v)
    return torch.cat(heard, -1)


def perceptron(network: Any, x: Tensor) -> Tensor:
    """Linear, GELU, Linear: (..., D) -> (..., D)."""
    inner, _, outer = network
    return affine(outer, gelu(affine(inner, x)))


def affine(layer: Any, x: Tensor) -> Tensor:
    """(..., I) -> (..., O)."""
    return x @ layer.weight.mT + layer.bias


def gelu(x: Tensor) -> Tensor:
    """x times the probability that a standard normal number is below it."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


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

"""Does the memory do anything? Numbers to tell recall from added capacity, computed only when asked.

Sizes: B batch, T time, C columns, K selected, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F
from wm_core import draws
from wm_core.distributions import straight_through
from wm_core.precision import wide
from wm_core.types import Carry, Latent, Recollection, Trace

from wm_memory import bank
from wm_memory.gaussian import Gaussian
from wm_memory.memory import Memory
from wm_memory.norms import evaluating
from wm_memory.recall import cosine, select


def branch_kl(trace: Trace) -> dict[str, Tensor]:
    """KL[post || prior] of either branch of a FusedRSSM, in nats, unclipped, mean over steps: kl/co and kl/mg."""
    post, prior = trace.post.detach(), trace.prior.detach()
    co, mg = (post.exp() * (post - prior)).sum(-1).chunk(2, -1)
    return {"kl/co": co.sum(-1).mean(), "kl/mg": mg.sum(-1).mean()}


@torch.no_grad()
def without_recall(trace: Trace) -> Latent:
    """The latent of a FusedRSSM's trace with z_mg drawn from its prior: what heads lose on it is what recall brought."""
    mg = trace.prior.chunk(2, -2)[1]
    drawn = straight_through(mg, draws.gumbel(mg.shape, mg.device))
    return replace(trace.latent, stoch=torch.cat([trace.latent.stoch.chunk(2, -2)[0], drawn], -2))


@torch.no_grad()
def staleness(query: Tensor, stale: Tensor, fresh: Tensor, mask: Tensor, *, count: int = 40) -> dict[str, Tensor]:
    """How far stored keys (B, C, E) lie from freshly encoded ones, for queries (B, T, E) that may see mask (B, T, C):
    stale/cosine between both, stale/overlap of what they select (Jaccard; 1 where nothing changes, and wherever a query
    sees no more than `count`: let it see several times as many).

    >>> keys = torch.randn(1, 6, 4)
    >>> found = staleness(keys[:, 5:], keys, keys, torch.ones(1, 1, 6, dtype=torch.bool), count=2)
    >>> round(found["stale/cosine"].item(), 3), found["stale/overlap"].item()
    (1.0, 1.0)
    """
    seen = mask.any(1)
    alike = F.cosine_similarity(wide(stale), wide(fresh), dim=-1)
    picked = []
    for keys in (stale, fresh):
        index, ok = select(cosine(query, keys), mask, count)
        picked.append(torch.zeros_like(mask).scatter(-1, index, ok))
    both, either = (picked[0] & picked[1]).sum(), (picked[0] | picked[1]).sum()
    return {"stale/cosine": (alike * seen).sum() / seen.sum().clamp(min=1), "stale/overlap": both / either.clamp(min=1)}


@torch.no_grad()
def recollection(
    memory: Memory, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor
) -> Recollection:
    """Which steps each query recalls, in evaluation mode. A step's weight is the mean of its attention weights over blocks and
    heads."""
    with evaluating(memory):
        columns, reading, _ = memory.look(carry, embed, action, reset)
        weight = (
            torch.stack(reading.weights).float().mean((0, 2)) * reading.chosen.ok
        )  # (blocks, B, H, T, K) -> (B, T, K)
        return Recollection(*_placed(memory, columns, reading.chosen.index), weight, reading.chosen.ok)


def _placed(memory: Memory, columns: bank.Bank, index: Tensor) -> tuple[Tensor, Tensor]:
    """How many steps and how many episodes ago the chosen columns were: (B, T, K)."""
    steps, total = index.shape[1], columns["first"].shape[1]
    shape = (*index.shape[:2], total)
    age = bank.ages(steps, total, index.device).expand(shape).gather(-1, index)
    episode = columns["first"].long().cumsum(1)
    theirs = episode[:, None].expand(shape).gather(-1, index)
    return age, episode[:, memory.window :, None] - theirs


@torch.no_grad()
def diagnose(
    memory: Memory, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor
) -> dict[str, Tensor]:
    """0-d tensors of what the memory recalls on these steps, in evaluation mode:

    recall/entropy: of the attention weights, in nats, mean over blocks and heads (log K is indifference)
    recall/age: median age of the selected keys, in steps; 0 where none is selected
    recall/past_episodes: share of the selected keys that lie in earlier episodes
    recall/cosine, recall/cosine_gap: mean similarity of the selected keys, and how far it lies above all visible ones
    recall/found: mean number of selected keys
    recall/latent_mean, recall/latent_variance: of the memory latent N(mu, sigma^2), the paper's 20 numbers: the mean over
        rows, steps and units of mu, with its sign, and of sigma^2 (Figure 4 c and d)
    bottleneck/mean, bottleneck/spread, bottleneck/std: mean |mu|, deviation of mu over steps, mean sigma

    Steps at which nothing is recalled count in the last two lines, as the others do: they have a latent too. A memory whose
    bottleneck has no moments (w/o VAE) lacks both lines.
    """
    with evaluating(memory):
        columns, reading, similarity = memory.look(carry, embed, action, reset)
        index, ok = reading.chosen.index, reading.chosen.ok
        count = ok.sum().clamp(min=1)
        age, episodes = _placed(memory, columns, index)
        past = (episodes != 0) & ok
        mask = memory.sight(columns, memory.window)
        chosen = (similarity.gather(-1, index) * ok).sum() / count
        visible = (similarity * mask).sum() / mask.sum().clamp(min=1)
        weights = torch.stack(reading.weights)  # (blocks, B, H, T, K)
        entropy = -torch.special.xlogy(weights, weights).sum(-1)
        some = ok.any(-1)[:, None].expand(entropy.shape[1:])
        found = {
            "recall/entropy": (entropy * some).sum() / (some.sum() * len(entropy)).clamp(min=1),
            "recall/age": torch.nanmedian(torch.where(ok, age.float(), torch.nan)).nan_to_num(),
            "recall/past_episodes": past.sum() / count,
            "recall/cosine": chosen,
            "recall/cosine_gap": chosen - visible,
            "recall/found": ok.sum(-1).float().mean(),
        }
        if isinstance(memory.bottleneck, Gaussian):
            mean, std = memory.bottleneck.moments(reading.f)
            found |= {
                "recall/latent_mean": mean.mean(),
                "recall/latent_variance": std.square().mean(),
                "bottleneck/mean": mean.abs().mean(),
                "bottleneck/spread": mean.flatten(0, 1).std(0, unbiased=False).mean(),
                "bottleneck/std": std.mean(),
            }
        return found

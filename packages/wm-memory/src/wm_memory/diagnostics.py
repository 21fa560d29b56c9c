"""Does the memory do anything? Numbers to tell recall from added capacity, computed only when asked.

Sizes: B batch, T time, C columns, K selected, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from wm_core.types import Carry

from wm_memory import bank
from wm_memory.gaussian import Gaussian
from wm_memory.memory import Memory
from wm_memory.norms import evaluating


@torch.no_grad()
def diagnose(
    memory: Memory, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, first: Tensor
) -> dict[str, Tensor]:
    """0-d tensors of what the memory recalls on these steps, in evaluation mode:

    recall/entropy: of the attention weights, in nats, mean over blocks and heads (log K is indifference)
    recall/age: median age of the selected keys, in steps
    recall/past_episodes: share of the selected keys that lie in earlier episodes
    recall/cosine, recall/cosine_gap: mean similarity of the selected keys, and how far it lies above all visible ones
    recall/found: mean number of selected keys
    bottleneck/mean, bottleneck/spread, bottleneck/std: mean |mu|, deviation of mu over steps, mean sigma
    """
    with evaluating(memory):
        columns, reading, similarity = memory.look(carry, embed, action, first)
        index, ok = reading.chosen.index, reading.chosen.ok
        count = ok.sum().clamp(min=1)
        age = bank.ages(first.shape[1], similarity.shape[-1], first.device).expand(similarity.shape).gather(-1, index)
        episode = columns["first"].long().cumsum(1)
        theirs = episode[:, None].expand(similarity.shape).gather(-1, index)
        past = (theirs != episode[:, memory.window :, None]) & ok
        mask = memory.sight(columns, memory.window)
        chosen = (similarity.gather(-1, index) * ok).sum() / count
        visible = (similarity * mask).sum() / mask.sum().clamp(min=1)
        weights = torch.stack(reading.weights)  # (blocks, B, H, T, K)
        entropy = -torch.special.xlogy(weights, weights).sum(-1)
        some = ok.any(-1)[:, None].expand(entropy.shape[1:])
        found = {
            "recall/entropy": (entropy * some).sum() / (some.sum() * len(entropy)).clamp(min=1),
            "recall/age": torch.nanmedian(torch.where(ok, age.float(), torch.nan)),
            "recall/past_episodes": past.sum() / count,
            "recall/cosine": chosen,
            "recall/cosine_gap": chosen - visible,
            "recall/found": ok.sum(-1).float().mean(),
        }
        if isinstance(memory.bottleneck, Gaussian):
            mean, std = memory.bottleneck.moments(reading.f)
            found |= {
                "bottleneck/mean": mean.abs().mean(),
                "bottleneck/spread": mean.flatten(0, 1).std(0, unbiased=False).mean(),
                "bottleneck/std": std.mean(),
            }
        return found

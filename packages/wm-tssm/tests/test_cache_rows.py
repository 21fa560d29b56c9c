"""Rollouts that are taken out of a cache, or joined with others of another age, go on as they would have."""

import pytest
import torch
from wm_tssm import TransformerStack, across_episodes, within_episode

WIDTH = 16


def stack(sight):
    torch.manual_seed(0)
    sizes = {"layers": 2, "heads": 4, "hidden": 32, "positions": 24, "room": 2}
    return TransformerStack(WIDTH, **sizes, sight=sight).double().eval()


def tokens(rows, length, seed):
    return torch.randn(rows, length, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def started(model, rows, length, seed):
    first = torch.zeros(rows, length, dtype=torch.bool)
    first[:, 0] = first[-1, length // 2] = True
    return model.starts(model(model.initial(rows), tokens(rows, length, seed), first)[3], 1)


def dreamt(model, cache, steps):
    never, outs = torch.zeros(len(steps), 1, dtype=torch.bool), []
    for token in steps.split(1, 1):
        out, _, cache, _ = model(cache, token, never)
        outs.append(out)
    return torch.cat(outs, 1), cache


@pytest.mark.parametrize("sight", [across_episodes, within_episode])
def test_joined_rollouts_go_on_as_alone(sight):
    """An old one with three dreamt tokens, and a new one; then the old one is given up and another put in its place."""
    model = stack(sight)
    with torch.no_grad():
        _, old = dreamt(model, started(model, 2, 9, 1), tokens(2, 3, 2))
        new, other = started(model, 2, 5, 3), started(model, 1, 4, 4)
        ahead, later = tokens(4, 3, 5), tokens(3, 2, 6)
        found, joined = dreamt(model, old.joined([new]), ahead)
        expected = torch.cat([dreamt(model, old, ahead[:2])[0], dreamt(model, new, ahead[2:])[0]])
        assert torch.allclose(found, expected, atol=1e-12)
        kept = joined.rows(torch.tensor([3, 2]))
        assert kept.used == 5 + 3  # what only the old ones saw is gone
        found, _ = dreamt(model, kept.joined([other]).rows(torch.tensor([2, 0, 1])), later)
        swapped = torch.cat([ahead[2:], later[1:].flip(0)], 1)
        alone, _ = dreamt(model, new, swapped)
        assert torch.allclose(found[1:], alone[:, 3:].flip(0), atol=1e-12)
        assert torch.allclose(found[:1], dreamt(model, other, later[:1])[0], atol=1e-12)


def test_one_rollout_repeated_leaves_the_cache_as_it_is():
    model = stack(across_episodes)
    with torch.no_grad():
        cache, ahead = started(model, 2, 6, 1), tokens(3, 4, 2)
        before = dreamt(model, cache, ahead[:2])[0]
        found, _ = dreamt(model, cache.rows(torch.tensor([1, 1, 1])), ahead)
        assert torch.allclose(found[1], before[1], atol=1e-12)
        assert dreamt(model, cache, ahead[:2])[0].equal(before)

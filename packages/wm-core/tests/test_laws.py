"""The laws hold for RSSM and Parallel(GRU), and planted bugs are caught."""

import dataclasses

import pytest
import torch
from torch import nn
from wm_core.parallel import GRUBackbone, Parallel
from wm_core.rssm import RSSM, Prior
from wm_core.testing import check_dynamics

SIZES = {"deter": 16, "stoch": (4, 3), "embed": 5, "action": 2, "hidden": 8}


def rssm(**parts):
    torch.manual_seed(0)
    return RSSM(**SIZES, blocks=2, **parts)


def parallel(cls=Parallel):
    torch.manual_seed(0)
    return cls(GRUBackbone(16), **SIZES)


@pytest.mark.parametrize("make", [rssm, parallel])
def test_laws_hold(make):
    check_dynamics(make(), embed={"obs": 5}, action=2)


def test_laws_hold_with_another_prior():
    check_dynamics(rssm(prior=nn.Sequential(nn.LayerNorm(16), Prior(16, 12, hidden=8))), embed={"obs": 5}, action=2)


class IgnoresFirst(RSSM):
    def observe(self, carry, embed, action, first):
        return super().observe(carry, embed, action, torch.zeros_like(first))


class KeepsActions(RSSM):
    """Of what it did before a reset, though not of what it saw."""

    def initial(self, n):
        return {**super().initial(n), "done": torch.zeros(n, SIZES["action"])}

    def observe(self, carry, embed, action, first):
        done = carry["done"][:, None] + action.cumsum(1)
        trace = super().observe({name: carry[name] for name in ("deter", "stoch")}, embed, done, first)
        return dataclasses.replace(trace, carry={**trace.carry, "done": done[:, -1]})


class LosesStoch(Parallel):
    def observe(self, carry, embed, action, first):
        return super().observe({**carry, "stoch": torch.zeros_like(carry["stoch"])}, embed, action, first)


class SeesTheFuture(RSSM):
    def observe(self, carry, embed, action, first):
        obs = embed["obs"]
        ahead = torch.cat([obs[:, 1:], obs[:, -1:]], 1)
        return super().observe(carry, {"obs": obs + ahead}, action, first)


class StartsOneEarly(RSSM):
    def starts(self, trace, last):
        latent = dataclasses.replace(
            trace.latent,
            deter=trace.latent.deter.roll(1, 1)[:, -last:].flatten(0, 1),
            stoch=trace.latent.stoch.roll(1, 1)[:, -last:].flatten(0, 1),
        )
        return {"deter": latent.deter, "stoch": latent.stoch}, latent


class StartsFromTheWrongStored(RSSM):
    def prefill(self, carry, past):
        shifted = {name: value.roll(1, 0) for name, value in past.stored.items()}  # another row's latent
        return super().prefill(carry, dataclasses.replace(past, stored=shifted))


class PrefillIgnoresValid(RSSM):
    def prefill(self, carry, past):
        return super().prefill(
            {"deter": carry["deter"] + 1, "stoch": carry["stoch"]},
            dataclasses.replace(past, valid=past.valid & False),
        )


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (lambda: IgnoresFirst(**SIZES, blocks=2), "reset|prefill"),
        (lambda: KeepsActions(**SIZES, blocks=2), "reset changed"),
        (lambda: parallel(LosesStoch), "pieces"),
        (lambda: SeesTheFuture(**SIZES, blocks=2), "later step|pieces"),
        (lambda: StartsOneEarly(**SIZES, blocks=2), "starts"),
        (lambda: StartsFromTheWrongStored(**SIZES, blocks=2), "prefill"),
        (lambda: PrefillIgnoresValid(**SIZES, blocks=2), "prefill"),
    ],
)
def test_planted_bugs_are_caught(make, law):
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=law):
        check_dynamics(make(), embed={"obs": 5}, action=2)

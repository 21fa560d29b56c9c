"""Every number of golden/dreamerv3-functions.npz, which the reference computed in float64, computed once more."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core import draws
from wm_core.distributions import Bernoulli, BoundedNormal, OneHot, unimix_logits
from wm_core.kl import BalancedKL, categorical_kl
from wm_core.norm import RMSNorm, norm_silu
from wm_core.optim import AdaptiveClip, LaProp
from wm_core.returns import Percentiles, lambda_return, replay_return
from wm_core.twohot import TwoHot, symexp, symlog, twohot_bins

FILE = np.load(Path(__file__).parent / "golden/dreamerv3-functions.npz")
# absolute, and relative to the largest entry: ten times what was measured when the file was made
ANY, MEANS, RAMP, BINS = (2e-12, 2e-14), (1e-7, 2e-14), (2e-7, 2e-6), (1e3, 1.2e-5)
APART = {"twohot/mean": MEANS, "twohot/mean_grad": MEANS, "twohot/peak_mean": MEANS, "twohot/bins_release": BINS}


def gold(name: str) -> Tensor:
    return torch.from_numpy(FILE[name])


def leaf(name: str) -> Tensor:
    return gold(name).requires_grad_()


class Given:
    """A source of one array of noise."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        assert shape == self.noise.shape
        return self.noise

    exponential = uniform = normal


def grad(total: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, inputs)


def distributions() -> Iterator[tuple[str, Tensor]]:
    x = leaf("symlog/grad_x")
    yield from {"symlog/y": symlog(gold("symlog/x")), "symlog/grad": grad(symlog(x).sum(), x)[0]}.items()
    yield "symexp/y", symexp(gold("symexp/x"))
    logits = leaf("twohot/logits")
    head = TwoHot(logits)
    loss, mean = head.loss(gold("twohot/target")), head.mode()
    yield from {"twohot/bins": twohot_bins().double(), "twohot/bins_release": twohot_bins().double()}.items()
    yield from {"twohot/loss": loss, "twohot/mean": mean}.items()
    yield "twohot/loss_grad", grad(loss.sum(), logits)[0]
    yield "twohot/mean_grad", grad(mean.sum(), logits)[0]
    yield "twohot/peak_mean", TwoHot(gold("twohot/peak_logits")).mode()
    yield "twohot/nan_loss", TwoHot(gold("twohot/logits")[:1]).loss(torch.tensor([torch.nan]))
    raw = gold("unimix/post_logits")
    logp = unimix_logits(raw, 0.01)
    entropy = OneHot(raw, 0.01).entropy().sum(-1)
    yield from {"unimix/logp": logp, "unimix/probs": logp.exp(), "unimix/entropy": entropy}.items()
    post = leaf("unimix/post_logits")
    with draws.drawing(Given(gold("sample/noise"))):
        sample = OneHot(post, 0.01).sample()
    yield from {"sample/value": sample, "sample/grad": grad((gold("sample/weight") * sample).sum(), post)[0]}.items()
    coin = Bernoulli(gold("bernoulli/logit")[:, None])
    yield from {"bernoulli/loss": coin.loss(gold("bernoulli/target")), "bernoulli/prob": coin.mode()}.items()
    m, s = leaf("normal/raw_mean"), leaf("normal/raw_std")
    normal = BoundedNormal(m, s)
    with draws.drawing(Given(gold("normal/noise"))):
        yield "normal/sample", normal.sample()
    logp, entropy = normal.log_prob(gold("normal/action")), normal.entropy()
    yield from {"normal/mean": normal.mean, "normal/std": normal.std, "normal/logp": logp}.items()
    to_mean, to_std = grad((logp + entropy).sum(), m, s)
    yield from {"normal/entropy": entropy, "normal/grad_raw_mean": to_mean, "normal/grad_raw_std": to_std}.items()
    policy = OneHot(gold("categorical/logits"))
    taken = F.one_hot(gold("categorical/action"), 6).double()
    yield from {"categorical/logp": policy.log_prob(taken), "categorical/entropy": policy.entropy()}.items()


def divergences() -> Iterator[tuple[str, Tensor]]:
    post, prior = leaf("unimix/post_logits"), leaf("unimix/prior_logits")
    one, other = (unimix_logits(x, 0.01)[None] for x in (post, prior))
    losses, raw = BalancedKL(1.0)(one, other)
    dyn, rep = losses["dyn"], losses["rep"]
    yield from {"kl/raw": raw[0], "kl/dyn": dyn[0], "kl/rep": rep[0]}.items()
    assert categorical_kl(one, other).equal(raw)
    yield from zip(("kl/grad_post", "kl/grad_prior"), grad((dyn + 0.1 * rep).sum(), post, prior), strict=True)


def norms() -> Iterator[tuple[str, Tensor]]:
    for width in (1, 4, 64, 256):
        at = f"rms_silu/{width}"
        norm, x = RMSNorm(width), leaf(f"{at}/x")
        norm.scale.data.copy_(gold(f"{at}/scale"))
        y = norm_silu(x, norm)
        to_x, to_scale = grad((gold(f"{at}/weight") * y).sum(), x, norm.scale)
        torch.testing.assert_close(F.silu(norm(x)), y)
        yield from {f"{at}/y": y, f"{at}/grad_x": to_x, f"{at}/grad_scale": to_scale}.items()


def returns() -> Iterator[tuple[str, Tensor]]:
    lam = gold("lambda_return/lam").item()
    numbers = (gold(f"lambda_return/{name}") for name in ("reward", "cont", "value"))
    yield "lambda_return/returns", lambda_return(*numbers, lam)
    for length in (2, 3, 64):
        rows = (gold(f"replay_return/{length}/{name}") for name in ("reward", "last", "terminal", "boot"))
        discount = gold("replay_return/discount").item()
        yield f"replay_return/{length}/returns", replay_return(*rows, discount=discount, lam=lam)
    scale, low, wide = Percentiles(), [], []
    for batch in gold("percentiles/x"):
        wide.append(scale(batch))
        low.append(scale.low.clone())
    yield from {"percentiles/low": torch.stack(low), "percentiles/scale": torch.stack(wide)}.items()


def optimiser() -> Iterator[tuple[str, Tensor]]:
    names = ("w", "z", "b", "zb", "s", "small", "zg")
    for how in ("const", "warmup"):
        params = [nn.Parameter(gold(f"laprop/param/{name}").clone()) for name in names]
        lr, warmup = gold(f"laprop/{how}/lr").item(), int(gold(f"laprop/{how}/warmup"))
        rule, kept = LaProp(params, lr=lr, warmup=warmup, clip=AdaptiveClip(0.3)), []
        for step in range(10):
            rule.apply([gold(f"laprop/grad/{name}")[step].clone() for name in names])
            kept.append([p.detach().clone() for p in params])
        for name, path, first, second in zip(names, zip(*kept, strict=True), rule.first, rule.second, strict=True):
            at = f"laprop/{how}"
            found = {f"{at}/params/{name}": torch.stack(path), f"{at}/first/{name}": first}
            yield from (found | {f"{at}/second/{name}": second}).items()


GIVEN = {
    *("symlog/x", "symlog/grad_x", "symexp/x", "twohot/target", "twohot/logits", "twohot/peak_logits"),
    *("unimix/post_logits", "unimix/prior_logits", "sample/noise", "sample/weight"),
    *("bernoulli/logit", "bernoulli/target", "categorical/logits", "categorical/action"),
    *(f"normal/{name}" for name in ("raw_mean", "raw_std", "action", "noise")),
    *(f"rms_silu/{width}/{name}" for width in (1, 4, 64, 256) for name in ("x", "scale", "weight")),
    *(f"lambda_return/{name}" for name in ("reward", "cont", "value", "lam")),
    *(f"replay_return/{n}/{name}" for n in (2, 3, 64) for name in ("reward", "boot", "last", "terminal")),
    *("replay_return/discount", "percentiles/x"),
    *(f"laprop/{kind}/{name}" for kind in ("param", "grad") for name in ("w", "z", "b", "zb", "s", "small", "zg")),
    *(f"laprop/{how}/{name}" for how in ("const", "warmup") for name in ("lr", "warmup")),
}


@cache
def found() -> dict[str, Tensor]:
    """Every array that is no input, by our code, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        parts = (distributions, divergences, norms, returns, optimiser)
        return {name: value.detach() for part in parts for name, value in part()}
    finally:
        torch.set_default_dtype(torch.float32)


def errors(name: str) -> tuple[float, float]:
    """The largest difference, absolute and as a share of the largest entry; what is not finite must be the same."""
    ours, theirs = found()[name], gold(name).double()
    assert ours.shape == theirs.shape, f"{name}: {tuple(ours.shape)}, not {tuple(theirs.shape)}"
    finite = theirs.isfinite()
    torch.testing.assert_close(ours[~finite], theirs[~finite], rtol=0, atol=0, equal_nan=True)
    if not finite.any():
        return 0.0, 0.0
    largest, off = theirs[finite].abs().max().item(), (ours - theirs)[finite].abs().max().item()
    return off, off / largest if largest else off


def test_every_array_is_an_input_or_held() -> None:
    assert set(FILE.files) == found().keys() | GIVEN and not found().keys() & GIVEN


@pytest.mark.parametrize("name", [name for name in FILE.files if name not in GIVEN])
def test_it_is_what_the_reference_computed(name: str) -> None:
    absolute, relative = APART.get(name, RAMP if name.startswith("laprop/warmup") else ANY)
    off = errors(name)
    assert off[0] <= absolute and off[1] <= relative, off

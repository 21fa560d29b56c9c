"""What heads and policies return: OneHot, TwoHot, Bernoulli, Normal, and the squared errors of observations.

Losses are reduced over the event alone: (B, T, event) -> (B, T). Everything here is computed in float32.
Sizes: S latents of K classes, A actions, V bins.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from functools import cache, cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from wm_core import draws
from wm_core.precision import wide


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp|x| - 1), the inverse of symlog.

    >>> symexp(symlog(torch.tensor(-7.0))).item()
    -7.0
    """
    return torch.sign(x) * torch.expm1(torch.abs(x))


def unimix_logits(logits: Tensor, unimix: float) -> Tensor:
    """log((1 - unimix) softmax + unimix / K): normalised log-probabilities of a softmax mixed with the uniform."""
    if unimix == 0:
        return F.log_softmax(wide(logits), -1)
    return mixed_logits(F.softmax(wide(logits), -1), unimix)


def mixed_logits(probs: Tensor, unimix: float) -> Tensor:
    """log((1 - unimix) p + unimix / K) of probabilities (..., K)."""
    return torch.log((1 - unimix) * probs + unimix / probs.shape[-1])


class OneHot:
    """A categorical over one-hot vectors (..., K) from logits, the uniform mixed in; samples are straight-through.

    `logits` are the normalised log-probabilities, computed when asked for.

    >>> dist = OneHot(torch.log(torch.tensor([0.1, 0.9])))
    >>> dist.mode().tolist(), round(dist.entropy().item(), 3)
    ([0.0, 1.0], 0.325)
    """

    def __init__(self, logits: Tensor, unimix: float = 0.0) -> None:
        self.raw, self.unimix = wide(logits), unimix

    @cached_property
    def logits(self) -> Tensor:
        return unimix_logits(self.raw, self.unimix)

    def sample(self) -> Tensor:
        """A one-hot sample with the gradient of the probabilities."""
        return sample_mixed(F.softmax(self.raw, -1), draws.exponential(self.raw.shape, self.raw.device), self.unimix)

    def mode(self) -> Tensor:
        return F.one_hot(self.raw.argmax(-1), self.raw.shape[-1]).to(self.raw.dtype)

    def tempered(self, temperature: float) -> OneHot:
        """p^(1 / temperature), normalised, of the mixed probabilities: below 1 nearer to the mode, above it to chance."""
        return OneHot(self.logits / temperature)

    def log_prob(self, action: Tensor) -> Tensor:
        return (action * self.logits).sum(-1)

    def entropy(self) -> Tensor:
        return -(self.logits.exp() * self.logits).sum(-1)

    def loss(self, target: Tensor) -> Tensor:
        return -self.log_prob(target)


def straight_through(logp: Tensor, noise: Tensor) -> Tensor:
    """argmax(logp + noise) as one-hot, with the gradient of exp(logp): (..., K)."""
    probs = logp.exp()
    hard = torch.zeros_like(probs).scatter_((-1), (logp.detach() + noise).argmax(-1, keepdim=True), 1.0)
    return hard + (probs - probs.detach())


def sample_mixed(probs: Tensor, noise: Tensor, unimix: float) -> Tensor:
    """A one-hot of (1 - unimix) p + unimix / K, the category that wins the race p / noise, with the gradient of the
    mixed probabilities where they have one: (..., K). `noise` is exponential, of the same shape.

    >>> sample_mixed(torch.tensor([0.2, 0.8]), torch.ones(2), unimix=0.01).tolist()
    [0.0, 1.0]
    """
    share = unimix / probs.shape[-1] / (1 - unimix)
    hard = F.embedding(
        ((probs.detach() + share) / noise).argmax(-1), one_hots(probs.shape[-1], probs.dtype, probs.device)
    )
    if not (probs.requires_grad and torch.is_grad_enabled()):
        return hard
    return hard + (1 - unimix) * (probs - probs.detach())


@cache
def one_hots(classes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The one-hot of every class, a row each (K, K): to look one up takes a call less than to write it."""
    return torch.eye(classes, dtype=dtype, device=device)


class OneHots:
    """Several independent one-hots side by side in one vector, a MultiDiscrete action."""

    def __init__(self, parts: Sequence[OneHot]) -> None:
        self.parts, self.sizes = list(parts), [p.raw.shape[-1] for p in parts]

    def sample(self) -> Tensor:
        return torch.cat([p.sample() for p in self.parts], -1)

    def mode(self) -> Tensor:
        return torch.cat([p.mode() for p in self.parts], -1)

    def tempered(self, temperature: float) -> OneHots:
        return OneHots([p.tempered(temperature) for p in self.parts])

    def log_prob(self, action: Tensor) -> Tensor:
        return sum_of(p.log_prob(a) for p, a in zip(self.parts, action.split(self.sizes, -1), strict=True))

    def entropy(self) -> Tensor:
        return sum_of(p.entropy() for p in self.parts)


def sum_of(parts: Iterable[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


class BoundedNormal:
    """Continuous policy: mean = tanh(m), std = 0.1 + 0.9 sigmoid(s + 2); a plain normal, the sample is not squashed.

    The environment clips to [-1, 1]; the world model rescales by max(1, |a|); log-prob and entropy are summed over A.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean = torch.tanh(wide(mean))
        self.std = 0.1 + 0.9 * torch.sigmoid(wide(std) + 2)

    def sample(self) -> Tensor:
        return self.mean + self.std * draws.normal(self.mean.shape, self.mean.device)

    def mode(self) -> Tensor:
        return self.mean

    def resampled(self, action: Tensor) -> Tensor:
        """The action as a function of mean and deviation, its noise held: mean + std * sg((a - mean) / std)."""
        return self.mean + self.std * ((action - self.mean) / self.std).detach()

    def tempered(self, temperature: float) -> BoundedNormal:
        """The density to the power of 1 / temperature, normalised: a normal again, temperature times as wide in variance."""
        colder = copy.copy(self)
        colder.std = self.std * temperature**0.5
        return colder

    def log_prob(self, action: Tensor) -> Tensor:
        z = (action - self.mean) / self.std
        return (-0.5 * z**2 - self.std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


class Joint:
    """Independent discrete and continuous parts side by side in one action vector."""

    def __init__(self, discrete: OneHot | OneHots, continuous: BoundedNormal, width: int) -> None:
        self.parts, self.width = (discrete, continuous), width

    def sample(self) -> Tensor:
        return torch.cat([p.sample() for p in self.parts], -1)

    def mode(self) -> Tensor:
        return torch.cat([p.mode() for p in self.parts], -1)

    def tempered(self, temperature: float) -> Joint:
        discrete, continuous = self.parts
        return Joint(discrete.tempered(temperature), continuous.tempered(temperature), self.width)

    def log_prob(self, action: Tensor) -> Tensor:
        one, two = action[..., : self.width], action[..., self.width :]
        return self.parts[0].log_prob(one) + self.parts[1].log_prob(two)

    def entropy(self) -> Tensor:
        return self.parts[0].entropy() + self.parts[1].entropy()


@cache
def _twohot_bins(count: int, device: torch.device) -> Tensor:
    half = symexp(torch.linspace(-20, 0, (count + 1) // 2, device=device, dtype=torch.float64))
    return torch.cat([half, -half[:-1].flip(0)]).float()


def twohot_bins(count: int = 255, device: torch.device | str = "cpu") -> Tensor:
    """symexp(linspace(-20, 0)) mirrored: `count` (odd) values in raw units, 0 in the middle."""
    if count % 2 == 0:
        raise ValueError(f"two-hot bins must be odd in number so that 0 lies in the middle, not {count}")
    return _twohot_bins(count, torch.device(device))


FAR = 1e3  # bins beyond it, in raw units, are most of 255 and up to 4.85e8


def rounding(dtype: torch.dtype) -> float:
    """By how much of their sum two probabilities may differ that would be one, but for the rounding of their logits.

    Logits of a size up to 16 in bfloat16 are 2**-4 apart; in float32, up to 1e-6 has been seen in 4000 updates of small
    nets, and larger ones add up more.
    """
    return min(2**13 * torch.finfo(dtype).eps, 2**-4)


class TwoHot:
    """A scalar as a categorical over symexp-spaced bins; the loss is the cross-entropy with the two-hot target.

    The target is split between its two neighbours linearly in RAW distance. The prediction pairs +- bins before
    adding, so that a zero-initialised head predicts exactly 0. No target reaches most of the far bins, whose pairs learn
    the same, but matrix products do not add up every column in one order: a difference in the last digit, times 4.85e8,
    moved single predictions by up to 6 in early training. Far pairs within rounding therefore count as the same.

    >>> head = TwoHot(torch.zeros(2, 255))
    >>> head.mode().tolist(), round(head.loss(torch.tensor([0.0, 3.0]))[0].item(), 3)
    ([0.0, 0.0], 5.541)
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = wide(logits)
        self.rounding = rounding(logits.dtype)
        self.bins = twohot_bins(logits.shape[-1], logits.device).to(self.logits.dtype)

    def mode(self) -> Tensor:
        """The mean, sum p * bin: (...)."""
        pairs, same = self.pairs()
        far = pairs[..., -same.shape[-1] :]
        far.sub_(far.detach() * same)  # the gradient stays that of the mean
        return self.of_pairs(pairs)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """p+ - p- of mirrored bins (..., V // 2), the nearest first, and which of the last, far ones count as the same."""
        probs = F.softmax(self.logits, -1)
        half = self.bins.shape[0] // 2
        far = int(half * math.log1p(FAR) / 20)
        above, below = probs[..., half + 1 :], probs[..., :half].flip(-1)
        pairs = above - below
        apart = pairs[..., far:].detach()
        return pairs, apart.abs() <= self.rounding * (above[..., far:] + below[..., far:])

    def of_pairs(self, pairs: Tensor) -> Tensor:
        """The mean of these pairs: (...)."""
        half = self.bins.shape[0] // 2
        with torch.autocast(pairs.device.type, enabled=False):  # a product in bfloat16 would tell 300 as 298
            return pairs @ self.bins[half + 1 :]

    def loss(self, target: Tensor) -> Tensor:
        """Cross-entropy with the two-hot target, which gets no gradient: (...)."""
        return self.loss_to(target[..., None])

    def loss_to(self, targets: Tensor, shares: Sequence[float] = (1.0,)) -> Tensor:
        """The sum of the losses to several targets (..., n), each with its share: (...)."""
        below, weight = self.split(targets)
        weights = torch.cat([1 - weight, weight], -1)
        if set(shares) != {1.0}:
            weights = weights * weights.new_tensor([*shares, *shares])
        picked = F.log_softmax(self.logits, -1).gather(-1, torch.cat([below, below + 1], -1))
        return -(picked * weights).sum(-1)

    def split(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The bin below (...) int64 and the weight of the bin above (...), of a target clipped to the end bins."""
        target = target.detach().to(self.bins.dtype).clamp(self.bins[0], self.bins[-1])
        below = (torch.searchsorted(self.bins, target.contiguous(), right=True) - 1).clamp(0, len(self.bins) - 2)
        low, high = self.bins[below], self.bins[below + 1]
        return below, (target - low) / (high - low)


class SettledTwoHot(TwoHot):
    """A two-hot whose mean is climbed: what counts as the same in it has no gradient either.

    A far pair of equal probabilities has the gradient of their difference, times up to 4.85e8. It is zero as long as what
    leads to the two logits is equal, and a difference in its last digit is, early in training, most of the gradient: over
    400 updates of R2I on Pendulum's observations, 100 times what the other bins give the critic's.

    >>> weight = torch.ones(1, 255)
    >>> weight[0, -1] += 1e-5
    >>> slopes = []
    >>> for kind in (TwoHot, SettledTwoHot):
    ...     x = torch.zeros(1, requires_grad=True)
    ...     slopes.append(torch.autograd.grad(kind(x * weight).mode().sum(), x)[0].item())
    >>> slopes[0] > 0.1, abs(slopes[1]) < 1e-3
    (True, True)
    """

    def mode(self) -> Tensor:
        pairs, same = self.pairs()
        far = same.shape[-1]
        return self.of_pairs(torch.cat([pairs[..., :-far], pairs[..., -far:] * ~same], -1))


class Bernoulli:
    """A probability from a logit (..., 1); the target may lie between 0 and 1 (a discount inside)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = wide(logits)[..., 0]

    def mode(self) -> Tensor:
        """The probability."""
        return torch.sigmoid(self.logits)

    def loss(self, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.logits, target.to(self.logits.dtype), reduction="none")


class HardContinue(Bernoulli):
    """Whether the episode goes on, learned as a probability and imagined as yes or no; the discount is in `mode`, and the
    target has none: STORM, and DreamerV3 of 2023.

    >>> HardContinue(torch.tensor([[-0.1], [0.1]]), discount=0.9).mode().tolist()
    [0.0, 0.8999999761581421]
    """

    def __init__(self, logits: Tensor, discount: float) -> None:
        super().__init__(logits)
        self.discount = discount

    def mode(self) -> Tensor:
        """The discount, or 0 where the end is more likely than not."""
        return self.discount * (self.logits >= 0).to(self.logits.dtype)


class SymlogMSE:
    """sum (pred - symlog(target))^2 over the last axis, no 1/2."""

    def __init__(self, pred: Tensor) -> None:
        self.pred = wide(pred)

    def mode(self) -> Tensor:
        return symexp(self.pred)

    def loss(self, target: Tensor) -> Tensor:
        return (self.pred - symlog(wide(target))).square().sum(-1)


class Categorical:
    """A discrete observation: cross-entropy with an index (...); logits (..., K)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = wide(logits)

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def loss(self, target: Tensor) -> Tensor:
        logp = F.log_softmax(self.logits, -1)
        return -logp.gather(-1, target.long()[..., None])[..., 0]


class ImageMSE:
    """sum over H, W, C of (pred - image / 255)^2, no 1/2, no mean; pred (..., H, W, C) lies in [0, 1]."""

    def __init__(self, pred: Tensor) -> None:
        self.pred = wide(pred)

    def mode(self) -> Tensor:
        return self.pred

    def loss(self, target: Tensor) -> Tensor:
        return (self.pred - target / 255).square().flatten(-3).sum(-1)

"""What heads and policies return: OneHot, Bernoulli, Normal, and the squared errors of observations; two-hots lie in `twohot`.

Losses are reduced over the event alone: (B, T, event) -> (B, T). Everything here is computed in float32.
Sizes: S latents of K classes, A actions.
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
from wm_core.twohot import symexp, symlog


def unimix_logits(logits: Tensor, unimix: float) -> Tensor:
    """log((1 - unimix) softmax + unimix / K): normalised log-probabilities of a softmax mixed with the uniform."""
    if unimix == 0:
        return F.log_softmax(wide(logits), -1)
    return mixed_logits(F.softmax(wide(logits), -1), unimix)


def mixed_logits(probs: Tensor, unimix: float) -> Tensor:
    """log((1 - unimix) p + unimix / K) of probabilities (..., K)."""
    return torch.log((1 - unimix) * probs + unimix / probs.shape[-1])


class OneHot:
    """A categorical over one-hot vectors (..., K) from logits, the uniform mixed in; samples are straight-through. An
    `ActionDistribution`, and a `Distribution` whose loss is -log p of a one-hot target: (...).

    >>> dist = OneHot(torch.log(torch.tensor([0.1, 0.9])))
    >>> dist.mode().tolist(), round(dist.entropy().item(), 3)
    ([0.0, 1.0], 0.325)
    """

    def __init__(self, logits: Tensor, unimix: float = 0.0) -> None:
        self.raw, self.unimix = wide(logits), unimix

    @cached_property
    def logits(self) -> Tensor:
        """The normalised log-probabilities (..., K), computed when asked for."""
        return unimix_logits(self.raw, self.unimix)

    def sample(self) -> Tensor:
        """A one-hot sample (..., K) with the gradient of the probabilities."""
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
    """Several independent one-hots side by side in one vector, a MultiDiscrete action: an `ActionDistribution`."""

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

    An `ActionDistribution`, and `Reparametrised`: its samples carry the gradient of mean and deviation, both (..., A). The
    environment clips to [-1, 1]; the world model rescales by max(1, |a|); log-prob and entropy are summed over A.
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
    """Independent discrete and continuous parts side by side in one action vector: an `ActionDistribution`.

    discrete: of the first `width` numbers of an action; continuous: of the rest.
    """

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


class Bernoulli:
    """A probability (...) from a logit (..., 1): a `Distribution` whose target (...) may lie between 0 and 1 (a discount
    inside), with the cross-entropy as its loss."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = wide(logits)[..., 0]

    def mode(self) -> Tensor:
        """The probability: (...)."""
        return torch.sigmoid(self.logits)

    def loss(self, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.logits, target.to(self.logits.dtype), reduction="none")


class Bernoullis:
    """Independent probabilities of an event (..., K) from its logits: which actions are allowed, a `MaskDistribution`.

    `loss` of a target (..., K), bool, is summed over the event; `mode` (..., K) bool is what is more likely than not.

    >>> masks = Bernoullis(torch.tensor([[-3.0, 2.0], [-3.0, -2.0]]))
    >>> masks.mode().tolist(), masks.allowed().tolist()
    ([[False, True], [False, False]], [[False, True], [False, True]])
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = wide(logits)

    def mode(self) -> Tensor:
        return self.logits > 0

    def sample(self) -> Tensor:
        """Each by its probability: (..., K) bool."""
        return draws.uniform(self.logits.shape, self.logits.device) < torch.sigmoid(self.logits)

    def allowed(self) -> Tensor:
        """As a mask of actions (..., K) bool: the mode, and the most likely where that is empty."""
        return filled(self.mode(), self.logits)

    def loss(self, target: Tensor) -> Tensor:
        target = target.to(self.logits.dtype)
        return F.binary_cross_entropy_with_logits(self.logits, target, reduction="none").sum(-1)


def filled(mask: Tensor, logits: Tensor) -> Tensor:
    """A mask (..., K) that allows something: the most likely by its logits where it was empty.

    >>> filled(torch.tensor([[False, False], [True, False]]), torch.tensor([[1.0, 2.0], [1.0, 2.0]])).tolist()
    [[False, True], [True, False]]
    """
    likely = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(torch.bool)
    return mask | (likely & ~mask.any(-1, keepdim=True))


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
    """sum (pred - symlog(target))^2 over the last axis, no 1/2: a `Distribution` of vectors (..., n) in raw units.

    pred: (..., n), of their symlog.
    """

    def __init__(self, pred: Tensor) -> None:
        self.pred = wide(pred)

    def mode(self) -> Tensor:
        return symexp(self.pred)

    def loss(self, target: Tensor) -> Tensor:
        return (self.pred - symlog(wide(target))).square().sum(-1)


class Categorical:
    """A discrete observation: a `Distribution` of an index (...) int, by cross-entropy; logits (..., K)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = wide(logits)

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def loss(self, target: Tensor) -> Tensor:
        logp = F.log_softmax(self.logits, -1)
        return -logp.gather(-1, target.long()[..., None])[..., 0]


class ImageMSE:
    """sum over H, W, C of (pred - image / 255)^2, no 1/2, no mean: a `Distribution` of images.

    pred: (..., H, W, C) in [0, 1], as `mode` gives it. The target of the loss is an image of bytes, 0 to 255.
    """

    def __init__(self, pred: Tensor) -> None:
        self.pred = wide(pred)

    def mode(self) -> Tensor:
        return self.pred

    def loss(self, target: Tensor) -> Tensor:
        return (self.pred - target / 255).square().flatten(-3).sum(-1)

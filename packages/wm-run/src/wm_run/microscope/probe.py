"""Features -> what the suite tells of the state, by the best linear map: how much of it a world model's state holds.

A vector that is one-hot wherever it was told is a class, found by multinomial logistic regression and scored by the share
found right; any other is numbers, found by ridge regression and scored by the share of variance explained.
Both minimise a strictly convex loss, so that what is found depends on the data alone.
Sizes: N examples, F features, K classes or numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PENALTIES = (
    1e-2,
    1.0,
    1e2,
    1e4,
)  # per example one loss, and this times half the squared weights of standardised features
HELD = 4  # every fourth row of those trained on chooses the penalty
STEPS = 200


@dataclass(frozen=True)
class Probe:
    """A linear map of standardised features: `weight` (F, K), `bias` (K,)."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    classes: bool
    penalty: float

    def __call__(self, features: Tensor) -> Tensor:
        """(..., F) -> (..., K): numbers, or logits."""
        return ((features.double() - self.mean) / self.scale) @ self.weight + self.bias


def is_classes(told: Tensor) -> bool:
    """Whether (..., K) is one-hot everywhere."""
    return told.shape[-1] > 1 and bool(((told == 0) | (told == 1)).all() and (told.sum(-1) == 1).all())


def fit(features: Tensor, told: Tensor, penalty: float, classes: bool) -> Probe:
    """The map of (N, F) to (N, K) for one penalty, in float64. Features that never change have no weight."""
    x, y = features.double(), told.double()
    mean, scale = x.mean(0), x.std(0, unbiased=False)
    scale = torch.where(scale > 1e-6, scale, torch.inf)
    x = (x - mean) / scale
    weight, bias = _logistic(x, y, penalty) if classes else _ridge(x, y, penalty)
    return Probe(mean, scale, weight, bias, classes, penalty)


def choose(features: Tensor, told: Tensor, rows: Tensor) -> Probe:
    """The same with the penalty under which the examples of every fourth row (rows (N,) says whose they are) are found best
    by the others, then fitted to all."""
    classes = is_classes(told)
    order = torch.unique(rows)
    held = torch.isin(rows, order[HELD - 1 :: HELD])
    if held.all() or not held.any():
        return fit(features, told, 1.0, classes)
    losses = [
        loss(fit(features[~held], told[~held], penalty, classes)(features[held]), told[held], classes)
        for penalty in PENALTIES
    ]
    return fit(features, told, PENALTIES[int(torch.stack(losses).argmin())], classes)


def loss(said: Tensor, told: Tensor, classes: bool) -> Tensor:
    """Mean cross entropy, or mean squared error: 0-d."""
    if classes:
        return F.cross_entropy(said, told.argmax(-1))
    return (said - told).square().mean()


def score(said: Tensor, told: Tensor, known: Tensor, valid: Tensor, classes: bool) -> list[float | None]:
    """By horizon: the share found right, or 1 - error / error of `known` (K,), the mean of what was trained on.

    said, told (B, H, K), valid (B, H). None where no row reaches, or what is told does not differ from what is known.

    >>> told = torch.tensor([[[2.0], [4.0]], [[0.0], [4.0]]])
    >>> score(torch.tensor([[[2.0], [4.0]], [[1.0], [4.0]]]), told, torch.tensor([1.0]), told[..., 0] >= 0, False)
    [0.5, 1.0]
    """
    count = valid.sum(0)
    if classes:
        right = ((said.argmax(-1) == told.argmax(-1)) & valid).sum(0) / count.clamp(min=1)
        return [one if n else None for one, n in zip(right.tolist(), count.tolist(), strict=True)]
    error, spread = (((one - told).square().sum(-1) * valid).sum(0) for one in (said, known.to(told.dtype)))
    pairs = zip(error.tolist(), spread.tolist(), strict=True)
    return [1 - wrong / of if of > 0 else None for wrong, of in pairs]


def _ridge(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """argmin |y - x w - b|^2 + penalty |w|^2; x has mean 0. By the smaller of two systems of equations."""
    bias = y.mean(0)
    rest, (n, features) = y - bias, x.shape
    if features <= n:
        return torch.linalg.solve(x.T @ x + penalty * torch.eye(features, dtype=x.dtype), x.T @ rest), bias
    return x.T @ torch.linalg.solve(x @ x.T + penalty * torch.eye(n, dtype=x.dtype), rest), bias


def _logistic(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """argmin sum_i -log softmax(x_i w + b)[y_i] + penalty / 2 |w|^2, by L-BFGS from zero."""
    weight = torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(y.shape[1], dtype=x.dtype, requires_grad=True)
    target, n = y.argmax(-1), len(x)
    rule = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        rule.zero_grad()
        with torch.enable_grad():
            # the bias has a penalty of next to nothing: of classes never seen it would grow for ever
            small = penalty * weight.square().sum() / 2 + 1e-6 * bias.square().sum()
            value: Tensor = (F.cross_entropy(x @ weight + bias, target, reduction="sum") + small) / n
            value.backward()
        return value

    rule.step(closure)
    return weight.detach(), bias.detach()

"""Update rules over named parameters with device-side counters: LaProp with adaptive gradient clipping, and Adam.

One call per operation for all tensors together (torch's foreach kernels); no host reads, so that an update can be
captured as one graph. What is saved names each moment after its parameter: an order may change, and equal shapes would
then change places unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from wm_core.errors import UserError
from wm_core.precision import wide
from wm_core.ranks import ranks

Clip = Callable[[list[Tensor], list[Tensor]], Tensor]
MOMENTS = ("first", "second")


class AdaptiveClip:
    """g <- g / max(1, |g| / (bound * max(least, |p|))), L2 over each whole tensor, biases and scales too.

    apart: tensors that hold several, one after the other along their first axis, and how much of it each takes; each of
    those is clipped by itself. So a policy's last layer, which the reference keeps as one for means and one for
    deviations: their sizes differ by much, and clipped together the smaller gradient is hardly clipped at all.

    >>> weight, grad = torch.ones(2, 1), torch.tensor([[1.0], [0.1]])
    >>> _ = AdaptiveClip(0.3, apart=[(weight, (1, 1))])([weight], [grad])
    >>> grad.flatten().tolist()  # together: 0.42 and 0.042
    [0.30000001192092896, 0.10000000149011612]
    """

    def __init__(
        self, bound: float = 0.3, least: float = 1e-3, apart: Iterable[tuple[Tensor, Sequence[int]]] = ()
    ) -> None:
        self.bound, self.least = bound, least
        self.held = [whole for whole, _ in apart]  # so that their ids stay theirs
        self.rows = {id(whole): tuple(rows) for whole, rows in apart if len(rows) > 1}

    @torch.no_grad()
    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> Tensor:
        """Clips in place and returns the norm of all gradients before it (0-d)."""
        if self.rows:
            split = [self.rows.get(id(p), (len(p),)) if p.dim() else None for p in params]
            params, grads = (_parts(whole, split) for whole in (params, grads))
        sizes = torch.stack(torch._foreach_norm(params))  # noqa: SLF001
        norms = torch.stack(torch._foreach_norm(grads))  # noqa: SLF001
        scale = (self.bound * sizes.clamp(min=self.least) / norms).clamp(max=1)
        torch._foreach_mul_(grads, list(scale.unbind()))
        return torch.linalg.vector_norm(norms)


def _parts(whole: list[Tensor], rows: list[tuple[int, ...] | None]) -> list[Tensor]:
    """Each tensor, or views of its parts where it is to be split."""
    found: list[Tensor] = []
    for one, sizes in zip(whole, rows, strict=True):
        found += [one] if sizes is None or len(sizes) == 1 else one.split(list(sizes))
    return found


class NormClip:
    """g <- g * min(1, bound / |g|), L2 over all tensors together."""

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> Tensor:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))  # noqa: SLF001
        torch._foreach_mul_(grads, (self.bound / (norm + 1e-6)).clamp(max=1))
        return norm


class Rule:
    """Parameters, their two moments and a counter: what LaProp and Adam share.

    `warmup` raises the learning rate linearly from 0 over that many updates (the first update moves nothing).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        clip: Clip,
        betas: tuple[float, float],
        eps: float,
        warmup: int = 0,
    ) -> None:
        self.params: list[Tensor] = [p for p in params if p.requires_grad]
        self.first = [torch.zeros_like(p) for p in self.params]
        self.second = [torch.zeros_like(p) for p in self.params]
        self.count = torch.zeros((), device=self.params[0].device)
        self.lr, self.clip, self.betas, self.eps, self.warmup = lr, clip, betas, eps, warmup

    @torch.no_grad()
    def step(self, loss: Tensor) -> dict[str, Tensor]:
        """One update on the gradient of a 0-d loss; gives the gradient's norm before clipping."""
        grads = list(torch.autograd.grad(loss, self.params, allow_unused=True, materialize_grads=True))
        ranks().average(grads)
        return self.apply(grads)

    @torch.no_grad()
    def apply(self, grads: list[Tensor]) -> dict[str, Tensor]:
        """One update on gradients given in the order of `params`; they are consumed."""
        norm = self.clip(self.params, grads)
        rate = (
            self.lr * (self.count / self.warmup).clamp(max=1) if self.warmup else torch.full_like(self.count, self.lr)
        )
        self.count += 1
        self.move(grads, rate)
        return {"grad_norm": norm, "lr": rate}

    def move(self, grads: list[Tensor], rate: Tensor) -> None:
        raise TypeError(f"{type(self).__name__} says not how to move; use LaProp or Adam")

    def tensors(self) -> list[Tensor]:
        """Everything that an update changes besides the parameters."""
        return [*self.first, *self.second, self.count]

    def state_dict(self, named: Mapping[str, Tensor]) -> dict[str, Any]:
        """The moments by the names of their parameters, and the counter. named: an agent's parameters, all of these in it.

        >>> layer = nn.Linear(2, 1)
        >>> state = LaProp(layer.parameters(), lr=0.1).state_dict(dict(layer.named_parameters()))
        >>> [*state["first"]]
        ['weight', 'bias']
        """
        names = self._names(named)
        return {name: dict(zip(names, getattr(self, name), strict=True)) for name in MOMENTS} | {"count": self.count}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any], named: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave, or lists in the order of the parameters, as runs of commit 2028e95 have them.

        Raises UserError, with nothing changed, where a moment is missing, is of no parameter, or has another shape.
        """
        names = self._names(named)
        found = {moment: _by_name(state[moment], names, self.params) for moment in MOMENTS}
        for moment, theirs in found.items():
            for mine, name in zip(getattr(self, moment), names, strict=True):
                mine.copy_(theirs[name])
        self.count.copy_(state["count"])

    def _names(self, named: Mapping[str, Tensor]) -> list[str]:
        """Of the parameters, in their order."""
        every = {id(parameter): name for name, parameter in named.items()}
        return [every[id(parameter)] for parameter in self.params]


def _by_name(moments: Any, names: list[str], params: list[Tensor]) -> dict[str, Tensor]:
    """Saved moments by name. Raises UserError where they do not fit the parameters."""
    way_out = "go on with the version that saved it, or take only the weights into a new run with --init-from"
    if not isinstance(moments, Mapping):
        if len(moments) != len(names):
            raise UserError(f"the optimiser was saved with {len(moments)} parameters and has {len(names)}: {way_out}")
        moments = dict(zip(names, moments, strict=True))
    mine = {name: tuple(parameter.shape) for name, parameter in zip(names, params, strict=True)}
    theirs = {name: tuple(moment.shape) for name, moment in moments.items()}
    odd = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if odd:
        there, here = (str(shapes.get(odd[0], "missing")) for shapes in (theirs, mine))
        more = f", and {len(odd) - 1} more differ" if len(odd) > 1 else ""
        raise UserError(
            f"the saved optimiser does not fit: its moment of {odd[0]!r} is {there} there and {here} here{more}; {way_out}"
        )
    return dict(moments)


class LaProp(Rule):
    """v <- b2 v + (1 - b2) g^2;  m <- b1 m + (1 - b1) g / (sqrt(v^) + eps);  p <- p - lr m^, both bias-corrected.

    >>> weight = nn.Parameter(torch.tensor([1.0]))
    >>> rule = LaProp([weight], lr=0.1)
    >>> _ = rule.step((3 * weight).sum())
    >>> round(weight.item(), 4)  # the first step is lr * sign(g)
    0.9
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        clip: Clip | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        warmup: int = 0,
    ) -> None:
        super().__init__(params, lr=lr, clip=clip or AdaptiveClip(), betas=betas, eps=eps, warmup=warmup)

    def move(self, grads: list[Tensor], rate: Tensor) -> None:
        b1, b2 = self.betas
        torch._foreach_mul_(self.second, b2)
        torch._foreach_addcmul_(self.second, grads, grads, 1 - b2)
        scale = torch._foreach_div(self.second, 1 - b2**self.count)  # noqa: SLF001
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, self.eps)
        torch._foreach_div_(grads, scale)
        torch._foreach_lerp_(self.first, grads, 1 - b1)
        step = torch._foreach_mul(self.first, rate / (1 - b1**self.count))  # noqa: SLF001
        torch._foreach_sub_(self.params, step)


class Adam(Rule):
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  p <- p - lr m^ / (sqrt(v^) + eps); a global norm clip."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        clip: Clip | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        warmup: int = 0,
    ) -> None:
        super().__init__(params, lr=lr, clip=clip or NormClip(1000.0), betas=betas, eps=eps, warmup=warmup)

    def move(self, grads: list[Tensor], rate: Tensor) -> None:
        b1, b2 = self.betas
        torch._foreach_lerp_(self.first, grads, 1 - b1)
        torch._foreach_mul_(self.second, b2)
        torch._foreach_addcmul_(self.second, grads, grads, 1 - b2)
        scale = torch._foreach_div(self.second, 1 - b2**self.count)  # noqa: SLF001
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, self.eps)
        step = torch._foreach_div(self.first, scale)  # noqa: SLF001
        torch._foreach_mul_(step, rate / (1 - b1**self.count))
        torch._foreach_sub_(self.params, step)


class Together:
    """Several rules that split one loss between them, each with its own parameters: one backward pass.

    PO-Dreamer's paper clips the model and the behaviour apart.
    """

    def __init__(self, **rules: Rule) -> None:
        self.rules = rules

    @torch.no_grad()
    def step(self, loss: Tensor) -> dict[str, Tensor]:
        params = [p for rule in self.rules.values() for p in rule.params]
        grads = list(torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True))
        ranks().average(grads)
        metrics: dict[str, Tensor] = {}
        for name, rule in self.rules.items():
            mine, grads = grads[: len(rule.params)], grads[len(rule.params) :]
            metrics |= {f"{key}/{name}": value for key, value in rule.apply(mine).items()}
        return metrics

    def tensors(self) -> list[Tensor]:
        """As of a rule."""
        return [tensor for rule in self.rules.values() for tensor in rule.tensors()]

    def state_dict(self, named: Mapping[str, Tensor]) -> dict[str, Any]:
        """Each rule's, by its name."""
        return {name: rule.state_dict(named) for name, rule in self.rules.items()}

    def load_state_dict(self, state: Mapping[str, Any], named: Mapping[str, Tensor]) -> None:
        """Raises UserError for other rules, and where a rule's state does not fit."""
        if state.keys() != self.rules.keys():
            raise UserError(
                f"the optimiser was saved as {sorted(state)} and is {sorted(self.rules)}: go on with the version that saved "
                "it, or take only the weights into a new run with --init-from"
            )
        for name, rule in self.rules.items():
            rule.load_state_dict(state[name], named)


@torch.no_grad()
def polyak(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    """Polyak averaging of parameters, in place: slow <- rate * fast + (1 - rate) * slow.

    >>> slow, fast = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(slow.weight), nn.init.ones_(fast.weight)
    >>> polyak(slow, fast, 0.25)
    >>> slow.weight.item()
    0.25
    """
    moved: list[Tensor] = list(slow.parameters())
    torch._foreach_lerp_(moved, list(fast.parameters()), rate)


def averages(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The plain mean of every loss: 0-d, float32.

    >>> averages({"a": torch.tensor([1.0, 3.0])})["a"].item()
    2.0
    """
    return {name: wide(loss).mean() for name, loss in losses.items()}


def total(losses: Mapping[str, Tensor], scales: Mapping[str, float]) -> Tensor:
    """sum of scale * mean(loss) over names that must match exactly (KeyError otherwise): 0-d.

    >>> total({"a": torch.ones(2, 3), "b": torch.ones(4)}, {"a": 1.0, "b": 0.5}).item()
    1.5
    """
    if losses.keys() != scales.keys():
        raise KeyError(f"losses and scales name different things: {sorted(losses.keys() ^ scales.keys())}")
    means = torch.stack([wide(loss).mean() if loss.dim() else wide(loss) for loss in losses.values()])
    return means @ _constant(tuple(scales[name] for name in losses), means.dtype, means.device)


@cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)

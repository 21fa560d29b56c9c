"""What R2I replaces in `Parallel`: what an episode begins with; and its ablations: a posterior that sees h, no resets.

Sizes: B batch, T time, E embed, D deter, S x K stochastic, X hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core import draws
from wm_core.blocks import MLP, linear
from wm_core.contracts import Backbone
from wm_core.distributions import straight_through
from wm_core.parallel import Parallel
from wm_core.types import Carry, Latent, Trace


class S3M(Parallel):
    """`Parallel` with a z of its own before an episode's first step, which `start` makes: `prior_mode` or `zeros`.

    >>> from wm_core.parallel import GRUBackbone
    >>> model = S3M(GRUBackbone(16), deter=16, stoch=(4, 3), embed=5, action=2, hidden=8)
    >>> first = torch.tensor([[[True], [False]]])
    >>> model.beginning(torch.zeros(1, 2, 12), torch.ones(1, 2, 2), first).sum(-1)
    tensor([[4., 2.]])
    """

    def __init__(self, backbone: Backbone, *, start: FirstStoch | None = None, **parts: Any) -> None:
        super().__init__(backbone, **parts)
        self.start = start or prior_mode

    def beginning(self, before: Tensor, action: Tensor, reset: Tensor) -> Tensor:
        """[z_{t-1}, a_t] (B, T, S*K + A); where `reset` (B, T, 1) says so, the z of a start and no action."""
        with torch.no_grad():
            start = self.start(self, before)
        return torch.cat([torch.where(reset, start, before), action * (~reset).float()], -1)


FirstStoch = Callable[[Parallel, Tensor], Tensor]  # of a dynamics, and a z whose dtype and device it takes: (1, S*K)


def prior_mode(dynamics: Parallel, like: Tensor) -> Tensor:
    """The mode of p(z | h = 0). In the release h is the tanh of learned numbers that begin at 0; a mode hands them no
    gradient, so that they stay there."""
    logits = dynamics.prior(like.new_zeros(1, dynamics.widths["deter"])).unflatten(-1, dynamics.shape)
    return F.one_hot(logits.argmax(-1), dynamics.shape[1]).to(like.dtype).flatten(-2)


def zeros(dynamics: Parallel, like: Tensor) -> Tensor:
    """No z, as the release has it where the initial state is zero too.

    The token is then zero, and at zero every norm of the stack multiplies the gradient by its eps**-0.5: the first
    updates of the presets tiny and cpu had gradients of 8e8 and 2e7, whose squares Adam, behind the clip, keeps for a
    thousand more.
    """
    return like.new_zeros(1, like.shape[-1])


class Recurrent(S3M):
    """`S3M` with q(z | e, h): step after step, for h_t needs z_{t-1}. The paper's ablation of its parallel half.

    >>> from wm_core.parallel import GRUBackbone
    >>> model = Recurrent(GRUBackbone(16), deter=16, stoch=(4, 3), embed=5, action=2, hidden=8)
    >>> first = torch.zeros(2, 6, dtype=torch.bool)
    >>> model.observe(model.initial(2), {"obs": torch.zeros(2, 6, 5)}, torch.zeros(2, 6, 2), first).post.shape
    torch.Size([2, 6, 4, 3])
    """

    def __init__(
        self, backbone: Backbone, *, deter: int, stoch: tuple[int, int], embed: int, hidden: int, **parts: Any
    ):
        posterior = nn.Sequential(MLP(embed + deter, hidden, 1), linear(hidden, stoch[0] * stoch[1]))
        super().__init__(
            backbone, deter=deter, stoch=stoch, embed=embed, hidden=hidden, posterior=posterior, **parts
        )  # fmt: skip

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Trace:
        steps = []
        # asked of the whole row: `NoResets` would take every single step for one that begins a row
        within = begins(reset) if isinstance(self.backbone, NoResets) else reset
        for t in range(reset.shape[1]):
            now = slice(t, t + 1)
            steps.append(self.step(carry, embed["obs"][:, now], action[:, now], reset[:, now], within[:, now]))
            carry = steps[-1].carry
        return _join(steps)

    def step(self, carry: Carry, embed: Tensor, action: Tensor, reset: Tensor, within: Tensor) -> Trace:
        """One step, T = 1: the token follows `reset`, the backbone `within`."""
        before = carry["stoch"].flatten(-2)[:, None]
        token = self.token(self.beginning(before, action, reset[..., None]))
        deter, hidden, after, each = self.backbone(carry["backbone"], token, within)
        post = self.logits(self.posterior(torch.cat([embed, deter], -1)))
        stoch = straight_through(post, draws.gumbel(post.shape, post.device))
        latent = Latent(deter, stoch, hidden)
        return Trace(latent, post, self.prior_logits(deter), {"stoch": stoch[:, -1], "backbone": after}, each)


def _join(steps: list[Trace]) -> Trace:
    """Traces of successive steps as one. `each` of an S5 stack is (B, T, X), like a GRU's."""
    latents = [step.latent for step in steps]
    hidden = None if latents[0].hidden is None else torch.cat([x.hidden for x in latents if x.hidden is not None], 1)
    latent = replace(
        latents[0],
        deter=torch.cat([x.deter for x in latents], 1),
        stoch=torch.cat([x.stoch for x in latents], 1),
        hidden=hidden,
    )
    post, prior = torch.cat([step.post for step in steps], 1), torch.cat([step.prior for step in steps], 1)
    return Trace(latent, post, prior, steps[-1].carry, torch.cat([step.each for step in steps], 1))


class NoResets(nn.Module):
    """A backbone that an episode's first step resets only where a row begins, as the released bsuite settings have it.

    Acting, whose rows are one step long, still resets.

    >>> from wm_core.parallel import GRUBackbone
    >>> tokens, first = torch.randn(1, 5, 4), torch.tensor([[True, False, True, False, False]])
    >>> never, gru = NoResets(GRUBackbone(4)), GRUBackbone(4)
    >>> out = never(never.initial(1), tokens, first)[0]
    >>> out.equal(never.backbone(never.initial(1), tokens, torch.zeros_like(first))[0])
    True
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.hidden_width: int = backbone.hidden_width

    def initial(self, *lead: int) -> Carry:
        return self.backbone.initial(*lead)

    def __call__(self, carry: Carry, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor | None, Carry, Any]:
        return super().__call__(carry, tokens, first)

    def forward(self, carry: Carry, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor | None, Carry, Any]:
        return self.backbone(carry, tokens, begins(first))

    def starts(self, each: Any, last: int) -> Carry:
        return self.backbone.starts(each, last)

    def left(self, carry: Carry) -> float:
        return self.backbone.left(carry)


def begins(first: Tensor) -> Tensor:
    """`first` (B, T) of a row's beginning alone."""
    return torch.cat([first[:, :1], torch.zeros_like(first[:, 1:])], 1)

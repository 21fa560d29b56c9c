"""tokens -> B u -> diagonal recurrence -> Re(C x) + D u: the S5 layer as R2I uses it, many inputs and many outputs.

Sizes: B batch, T time, H width of tokens, P complex states.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wm_ssm.hippo import hippo_n
from wm_ssm.real import RealS5
from wm_ssm.scan import linear_scan

Discretise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Product = Callable[..., Tensor]  # (x, weight, bias or None), as torch.nn.functional.linear takes them


def bilinear(spectrum: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Decay (1 + step/2 L) / (1 - step/2 L) and the input's gain step / (1 - step/2 L), each (P,).

    >>> bilinear(torch.tensor([-1.0 + 0j]), torch.tensor([1.0]))
    (tensor([0.3333+0.j]), tensor([0.6667+0.j]))
    """
    half = step / 2 * spectrum
    return (1 + half) / (1 - half), step / (1 - half)


def zoh(spectrum: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Zero-order hold: decay exp(step L) and the input's gain (exp(step L) - 1) / L, each (P,); no L is 0.

    >>> decay, gain = zoh(torch.tensor([-1.0 + 0j]), torch.tensor([1.0]))
    >>> decay.real, gain.real
    (tensor([0.3679]), tensor([0.6321]))
    """
    return torch.exp(step * spectrum), torch.expm1(step * spectrum) / spectrum


class Negative(nn.Module):
    """Real parts held below -1e-4: the recurrence cannot explode. Where it holds one, no gradient passes.

    >>> Negative()(torch.tensor([-0.5, 2.0])).tolist()
    [-0.5, -9.999999747378752e-05]
    """

    def forward(self, real: Tensor) -> Tensor:
        return real.clamp(max=-1e-4)


class S5(nn.Module):
    """A backbone, a diagonal state-space layer; acting is the same call with T = 1. Read `wm_ssm.plain.s5` first.

    x_t = decay * x_{t-1} + gain * B u_t;  y_t = Re(C x_t) + D u_t. Where `first`, x_{t-1} is the learned start.
    The spectrum starts as HiPPO-N in `blocks` equal blocks, both conjugate halves kept. The arithmetic runs in the
    parameters' precision, whatever autocast says.

    Args:
        width: H, of tokens and output.
        state: P; a multiple of 2 * blocks.
        blocks: of the spectrum, equal when drawn.
        discretise: `bilinear` or `zoh`, at every call anew.
        steps: bounds between which step sizes are drawn, uniform in their logarithm.
        c_scale: multiplies C as drawn, whose standard deviation is 1 / sqrt(H P) for each part, as in R2I's code
            (sqrt(H) below S5's), so that D u leads at first.
        learned: is the start of a sequence learned (from 0), or 0?
        negative: are real parts held negative? R2I does not; see `radius`.
        product: makes the products x W'; another library's may be faster.

    Raises:
        ValueError: `state` is not a multiple of 2 * blocks.

    >>> layer = S5(width=6, state=16)
    >>> tokens, first = torch.randn(2, 9, 6), torch.zeros(2, 9, dtype=torch.bool)
    >>> out, hidden, carry, each = layer(layer.initial(2), tokens, first)
    >>> out.shape, hidden.shape, carry.shape
    (torch.Size([2, 9, 6]), torch.Size([2, 9, 32]), torch.Size([2, 32]))
    """

    start: Tensor

    def __init__(
        self,
        width: int,
        state: int,
        *,
        blocks: int = 8,
        discretise: Discretise = bilinear,
        steps: tuple[float, float] = (1e-3, 1e-1),
        c_scale: float = 1.0,
        learned: bool = True,
        negative: bool = False,
        product: Product = F.linear,
    ) -> None:
        super().__init__()
        if state < 1 or state % (2 * blocks):
            raise ValueError(f"state is a multiple of twice the blocks ({2 * blocks}), not {state}")
        self.width, self.state, self.discretise, self.product = width, state, discretise, product
        self.hidden_width = 2 * state
        spectrum, vectors = hippo_n(state // blocks)
        drawn_b = _normal(state, width, fan_in=state).to(torch.float64).unflatten(0, (blocks, -1)).to(vectors.dtype)
        drawn_c = torch.view_as_complex(_normal(width, state, 2, fan_in=width * state).to(torch.float64)) * c_scale
        into = (vectors.mH @ drawn_b).flatten(0, 1)  # (P, H), each block in the coordinates of its eigenvectors
        outof = (drawn_c.unflatten(1, (blocks, -1)) @ vectors).flatten(1)  # (H, P)
        low, high = map(math.log, steps)
        given = torch.get_default_dtype()
        self.lambda_re = nn.Parameter(spectrum.real.repeat(blocks).to(given))
        self.lambda_im = nn.Parameter(spectrum.imag.repeat(blocks).to(given))
        self.B = nn.Parameter(torch.view_as_real(into).to(given))
        self.C = nn.Parameter(torch.view_as_real(outof).to(given))
        self.D = nn.Parameter(torch.randn(width))
        self.log_step = nn.Parameter(torch.empty(state).uniform_(low, high))
        if learned:
            self.start = nn.Parameter(torch.zeros(state, 2))
        else:
            self.register_buffer("start", torch.zeros(state, 2))
        self.hold: nn.Module = Negative() if negative else nn.Identity()

    def decay(self) -> tuple[Tensor, Tensor]:
        """The discrete decay and the input's gain, each (P,) complex."""
        spectrum = torch.complex(self.hold(self.lambda_re), self.lambda_im)
        return self.discretise(spectrum, self.log_step.exp())

    def radius(self) -> Tensor:
        """The largest |decay|, 0-d: above 1 the recurrence explodes."""
        return self.decay()[0].abs().max()

    def initial(self, *lead: int) -> Tensor:
        """The state before any token: (*lead, 2P), real and imaginary parts in turn."""
        return self.start.flatten().expand(*lead, -1)

    def __call__(self, carry: Tensor, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """tokens (B, T, H), first (B, T) bool -> out (B, T, H), hidden (B, T, 2P), carry (B, 2P), each for `starts`.

        More axes of rows may stand between T and H.
        """
        return super().__call__(carry, tokens, first)

    def forward(self, carry: Tensor, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.autocast(tokens.device.type, enabled=False):
            u = tokens.to(self.B.dtype)
            decay, gain = self.decay()
            into = torch.view_as_real(gain[:, None] * torch.view_as_complex(self.B))  # (P, H, 2)
            driven = self.product(u, into.transpose(1, 2).flatten(0, 1))  # one real product: (B, T, 2P)
            states = linear_scan(
                decay,
                _complex(driven).transpose(0, 1),
                torch.view_as_complex(self.start),
                first.reshape(*first.shape, *[1] * (tokens.ndim - 1 - first.ndim))
                .expand(tokens.shape[:-1])
                .transpose(0, 1),
                carry=_complex(carry.to(u.dtype)),
            )
            hidden = torch.view_as_real(states.transpose(0, 1)).flatten(-2)  # (B, T, 2P)
            real, imaginary = self.C.unbind(-1)  # Re(C x) = Re C Re x - Im C Im x
            out = self.product(hidden, torch.stack([real, -imaginary], -1).flatten(1)) + self.D * u
        return out, hidden, hidden[:, -1], hidden

    def starts(self, each: Tensor, last: int) -> Tensor:
        """The carry after each of the last `last` tokens: (B * last, 2P)."""
        return each[:, -last:].flatten(0, 1)

    def left(self, carry: Tensor) -> float:
        """How many tokens may still follow: as many as one likes."""
        return math.inf

    def exportable(self) -> RealS5:
        """The layer as it is now in real numbers alone, for runtimes that know no complex ones."""
        return RealS5(self)


def by_name(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The state-space tensors of all S5 layers in a module, by name; R2I clips the gradient of each name by itself.

    >>> groups = by_name(nn.Sequential(S5(4, 16), S5(4, 16), nn.Linear(4, 4)))
    >>> {name: len(group) for name, group in groups.items()}
    {'lambda_re': 2, 'lambda_im': 2, 'B': 2, 'C': 2, 'D': 2, 'log_step': 2}
    """
    layers = [layer for layer in module.modules() if isinstance(layer, S5)]
    names = ("lambda_re", "lambda_im", "B", "C", "D", "log_step")
    return {name: [getattr(layer, name) for layer in layers] for name in names}


def _complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.unflatten(-1, (-1, 2)))


def _normal(*shape: int, fan_in: int) -> Tensor:
    """Normal, cut at two deviations, of variance 1 / fan_in after the cut."""
    cut = 0.87962566103423978  # the deviation of a standard normal cut at 2
    std = fan_in**-0.5 / cut
    return nn.init.trunc_normal_(torch.empty(*shape), std=std, a=-2 * std, b=2 * std)

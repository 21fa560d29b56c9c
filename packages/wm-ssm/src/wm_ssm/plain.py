"""The recurrence and the S5 layer in straight lines, above each line its shape: read these first.

`plain_scan` is what `wm_ssm.scan.linear_scan` computes by any of its methods, `s5` what `wm_ssm.s5.S5` does with its
parameters; the tests hold both to these lines, values and gradients, in float64.
Sizes: B batch, T time, H width of tokens, P complex states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wm_ssm.scan import fitted

if TYPE_CHECKING:
    from wm_ssm.s5 import S5


def plain_scan(
    decay: Tensor, input: Tensor, start: Tensor, reset: Tensor | None = None, *, carry: Tensor | None = None
) -> Tensor:
    """x_t = decay_t * x_{t-1} + input_t, through autograd, as often differentiable as one likes.

    Takes what `linear_scan` takes, gives what it gives, (T, B, P), and raises ValueError for what does not fit.

    >>> plain_scan(torch.tensor([2.0]), torch.ones(3, 1, 1), torch.tensor([1.0])).flatten()
    tensor([ 3.,  7., 15.])
    """
    # (P,) or (T, B, P); (T, B, P); (B, P); (T, B) or None; (B, P)
    decay, input, start, reset, state = fitted(decay, input, start, reset, carry)
    states = []
    for t in range(len(input)):
        if reset is not None:
            # (B, P): what was before a reset is gone
            state = torch.where(reset[t][..., None], start, state)
        # (B, P)
        state = (decay if decay.ndim == 1 else decay[t]) * state + input[t]
        states.append(state)
    return torch.stack(states)


def s5(layer: S5, carry: Tensor, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """carry (B, 2P), tokens (B, T, H), first (B, T) bool -> out (B, T, H) and hidden (B, T, 2P), by an S5's parameters.

    >>> from wm_ssm import S5
    >>> layer, tokens, first = S5(6, 16), torch.randn(2, 9, 6), torch.zeros(2, 9, dtype=torch.bool)
    >>> out, hidden = s5(layer, layer.initial(2), tokens, first)
    >>> torch.allclose(out, layer(layer.initial(2), tokens, first)[0], atol=1e-5)
    True
    """
    # (P,): eigenvalues of the continuous equation x' = L x + B u
    spectrum = torch.complex(layer.hold(layer.lambda_re), layer.lambda_im)
    # (P,), (P,): of the discrete one, with a step size for each state
    decay, gain = layer.discretise(spectrum, layer.log_step.exp())
    # (P, H), (H, P), (P,)
    into, outof, start = (
        torch.view_as_complex(layer.B),
        torch.view_as_complex(layer.C),
        torch.view_as_complex(layer.start),
    )
    # (B, P): real and imaginary parts lie in turn
    state = torch.view_as_complex(carry.unflatten(-1, (-1, 2)))
    outs, states = [], []
    for t in range(tokens.shape[1]):
        # (B, H)
        u = tokens[:, t]
        # (B, P): a sequence begins with the learned start
        state = torch.where(first[:, t, None], start, state)
        # (B, P)
        state = decay * state + gain * (u.to(into.dtype) @ into.mT)
        # (B, H)
        out = (state @ outof.mT).real + layer.D * u
        outs.append(out)
        states.append(torch.view_as_real(state).flatten(-2))
    return torch.stack(outs, 1), torch.stack(states, 1)

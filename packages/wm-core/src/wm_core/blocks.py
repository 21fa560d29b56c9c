"""The layers DreamerV3 is made of: layer -> RMSNorm -> SiLU, and the block-diagonal GRU (specs: DreamerV3, Nature 2025).

Layers touch the last axis; leading sizes are the caller's business.
Sizes: I in, O out, G blocks, D deter, U units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wm_core.fast import product
from wm_core.fast.resting import once
from wm_core.norm import RMSNorm, norm_silu, scaled_silu


def truncated_normal_(weight: Tensor, fan_in: int, outscale: float = 1.0) -> Tensor:
    """Fill with a normal truncated at two deviations, of standard deviation outscale / sqrt(fan_in).

    >>> weight = truncated_normal_(torch.empty(4096, 64), fan_in=64)
    >>> bool((weight.std() * 8 - 1).abs() < 0.02)
    True
    """
    with torch.no_grad():
        if outscale == 0:
            return weight.zero_()
        # 1.1368 restores the unit deviation that the truncation at 2 takes away
        return nn.init.trunc_normal_(weight, 0.0, 1.0, -2.0, 2.0).mul_(1.1368 * outscale / fan_in**0.5)


def linear(inputs: int, outputs: int, outscale: float = 1.0) -> nn.Linear:
    """A linear layer with bias in Dreamer's initialisation; outscale 0 makes a head predict zero at first."""
    layer = product.Linear(inputs, outputs)
    truncated_normal_(layer.weight, inputs, outscale)
    nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Sequential):
    """`layers` times [Linear, RMSNorm, SiLU]: (..., I) -> (..., U). `width` is the output size.

    >>> MLP(10, units=16, layers=2)(torch.zeros(3, 10)).shape
    torch.Size([3, 16])
    """

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [linear(inputs, units), RMSNorm(units), nn.SiLU()]
            inputs = units
        super().__init__(*parts)
        self.width = inputs

    def forward(self, x: Tensor) -> Tensor:
        for i in range(0, len(self), 3):
            x = norm_silu(self[i](x), self[i + 1])  # type: ignore[arg-type]
        return x


class BlockLinear(nn.Module):
    """A linear layer whose G blocks do not see each other, `wm_core.plain.blocks`: (..., I) -> (..., O).

    The weight lies as (I/G, G, O/G). Initialised with the full I as fan-in, as the reference does: blocks start
    sqrt(G) smaller than their true fan-in asks for.

    >>> BlockLinear(16, 32, blocks=4)(torch.zeros(3, 16)).shape
    torch.Size([3, 32])
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, outscale: float = 1.0) -> None:
        super().__init__()
        if inputs % blocks or outputs % blocks:
            raise ValueError(f"{blocks} blocks divide neither {inputs} inputs nor {outputs} outputs evenly")
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(inputs // blocks, blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))
        truncated_normal_(self.weight, inputs, outscale)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.blocks, x.shape[-1] // self.blocks)  # (N, G, I/G)
        out = product.blocks(flat, self.weight.transpose(0, 1), self.bias.unflatten(0, (self.blocks, 1, -1)))
        return out.reshape(*x.shape[:-1], -1)


class BlockGRU(nn.Module):
    """Dreamer's sequence model: a GRU over G blocks that share a view of everything else. Read `wm_core.plain.block_gru`
    first: the same in straight lines.

    x = [SiLU(norm(Linear(part))) for each part of the state and for the action]; every block reads its own slice of
    deter and all of x; then Linear, RMSNorm, SiLU, Linear, and the gates
    reset = sigmoid(r), cand = tanh(reset * c), update = sigmoid(u - 1), deter' = update * cand + (1 - update) * deter.

    `state` gives the widths of the parts read besides the action, the first of them usually deter itself.
    `drive(action)` is the part that does not depend on the state: call it once for all steps, outside the time loop.

    >>> cell = BlockGRU(deter=16, state=(16, 6), action=3, hidden=8, blocks=4)
    >>> deter, stoch, action = torch.zeros(2, 16), torch.zeros(2, 6), torch.zeros(2, 3)
    >>> cell(deter, (deter, stoch), cell.drive(action)).shape
    torch.Size([2, 16])
    """

    def __init__(self, *, deter: int, state: Sequence[int], action: int, hidden: int, blocks: int = 8) -> None:
        super().__init__()
        self.deter, self.blocks = deter, blocks
        self.inputs = nn.ModuleList([MLP(width, hidden, 1) for width in state])
        self.action = MLP(action, hidden, 1)
        shared = hidden * (len(state) + 1)
        own = deter // blocks
        # one tensor, so that adaptive gradient clipping sees the layer whole; (I, G, O) makes both parts views
        self.weight = nn.Parameter(torch.empty(own + shared, blocks, own))
        truncated_normal_(self.weight, deter + blocks * shared)
        self.bias = nn.Parameter(torch.zeros(deter))
        self.norm = RMSNorm(deter)
        self.gates = BlockLinear(deter, 3 * deter, blocks)

    def drive(self, action: Tensor) -> Tensor:
        """What the action (..., A) adds before the norm, and the bias: (..., D)."""
        hidden = self.action(action)
        return product.linear(hidden, self._shared()[-hidden.shape[-1] :].t(), self.bias)

    def forward(self, deter: Tensor, state: Sequence[Tensor], driven: Tensor) -> Tensor:
        """deter (N, D), state parts (N, width), driven (N, D) from `drive` -> the next deter (N, D)."""
        x = torch.cat([part(value) for part, value in zip(self.inputs, state, strict=True)], -1)
        return self.gated(deter, torch.addmm(driven, x, self._shared()[: x.shape[-1]]))

    def advance(self, deter: Tensor, state: Sequence[Tensor], action: Tensor) -> Tensor:
        """The same with the action (N, A) itself: state and action share their layers' calls. For single steps."""
        layers = [*self.inputs, self.action]
        parts = [layer[0](value) for layer, value in zip(layers, [*state, action], strict=True)]
        scales = [layer[1].scale for layer in layers]
        scale = once(lambda: torch.stack(scales), *scales)
        x = scaled_silu(torch.stack(parts, 1), scale, layers[0][1]).flatten(1)
        return self.gated(deter, product.linear(x, self._shared().t(), self.bias))

    def gated(self, deter: Tensor, shared: Tensor) -> Tensor:
        """deter (N, D) and what all blocks see (N, D), which is consumed -> the next deter (N, D)."""
        apart, rows, low = (self.blocks, self.deter // self.blocks), len(deter), shared.dtype
        old = deter.unflatten(-1, apart)  # (N, G, D/G)
        own = once(lambda: product.prepared(self._own().to(low), rows), self.weight)
        product.add_blocks(shared.unflatten(-1, apart), old.to(low), own)
        hidden = norm_silu(shared, self.norm).unflatten(-1, apart)
        opening = once(lambda: product.prepared(self.gates.weight.transpose(0, 1), rows), self.gates.weight)
        gates = product.blocks(hidden, opening, self._gate_bias()).to(deter.dtype)
        gates = gates.unflatten(-1, (3, -1))  # (N, G, 3, D/G)
        reset, update = torch.sigmoid(gates[:, :, ::2]).unbind(-2)
        return torch.lerp(old, torch.tanh(reset * gates[:, :, 1]), update).flatten(-2)

    def _own(self) -> Tensor:
        return self.weight[: self.deter // self.blocks].transpose(0, 1)  # (G, D/G, D/G), a view

    def _gate_bias(self) -> Tensor:
        def shifted() -> Tensor:  # update = sigmoid(u - 1): a new state keeps most of the old one
            reset, cand, update = self.gates.bias.view(self.blocks, 1, 3, -1).unbind(2)
            return torch.cat([reset, cand, update - 1], -1)

        return once(shifted, self.gates.bias)  # (G, 1, 3 D/G)

    def _shared(self) -> Tensor:
        return self.weight[self.deter // self.blocks :].flatten(1)  # (shared, D), a view

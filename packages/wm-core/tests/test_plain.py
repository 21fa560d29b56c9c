"""Every fast path of wm-core is its plain lines: values and gradients in float64. Sizes as in wm_core.plain."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wm_core import plain
from wm_core.blocks import MLP, BlockGRU, BlockLinear
from wm_core.fast import product
from wm_core.fast.scan import posterior_scan
from wm_core.images import UpConv
from wm_core.norm import RMSNorm, norm_silu
from wm_core.posterior import Posterior
from wm_core.returns import accumulate

N, B, T, A, E, D, S, K, H, G = 5, 3, 6, 2, 7, 16, 4, 3, 8, 4


def loud(module: Any) -> Any:
    """The module in float64, none of its parameters 0 or 1 by chance."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, 0, 0.5)
    return module


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def assert_same(one: Callable[[], Tensor], other: Callable[[], Tensor], given: list[Tensor]) -> None:
    """Equal values, and equal gradients of everything given; each has one."""
    found = []
    for function in (one, other):
        out = function()
        pull = torch.cos(torch.arange(out.numel(), dtype=out.dtype)).view(out.shape)
        found.append([out, *torch.autograd.grad((out * pull).sum(), given)])
    for fast, straight in zip(*found, strict=True):
        assert straight.abs().max() > 1e-6
        torch.testing.assert_close(fast, straight, rtol=0, atol=1e-11)


@pytest.mark.parametrize("way", ["driven", "advanced"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_cell_is_its_equations(way: str, parts: int) -> None:
    torch.manual_seed(parts)
    widths = (D, S * K)[:parts]
    cell = loud(BlockGRU(deter=D, state=widths, action=A, hidden=H, blocks=G))
    state, action = [numbers(N, width) for width in widths], numbers(N, A)

    def fast() -> Tensor:
        if way == "driven":
            return cell(state[0], state, cell.drive(action))  # type: ignore[no-any-return]
        return cell.advance(state[0], state, action)  # type: ignore[no-any-return]

    assert_same(fast, lambda: plain.block_gru(cell, state[0], state, action), [*state, action, *cell.parameters()])


def test_a_posterior_is_its_equations() -> None:
    torch.manual_seed(0)
    network = loud(Posterior(D, E, S * K, hidden=H))
    deter, embed = numbers(N, D), numbers(N, E)
    given = [deter, embed, *network.parameters()]
    assert_same(lambda: network(deter, network.drive(embed)), lambda: plain.posterior(network, deter, embed), given)


class Branch(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.cell = BlockGRU(deter=D, state=(count * D, S * K), action=A, hidden=H, blocks=G)
        self.posterior = Posterior(D, E, S * K // count, hidden=H)

    def straight(self) -> SimpleNamespace:
        """The same weights, used by plain lines alone; what drives it are the action and the embedding themselves."""
        return SimpleNamespace(
            cell=lambda deter, state, action: plain.block_gru(self.cell, deter, state, action),
            posterior=lambda deter, embed: plain.posterior(self.posterior, deter, embed),
        )


@pytest.mark.parametrize("count", [1, 2])
def test_a_models_steps_are_plain_lines_throughout(count: int) -> None:
    """The scan over driven cells and posteriors, against a loop in which no line of a fast path runs."""
    torch.manual_seed(count)
    branches = loud(nn.ModuleList([Branch(count) for _ in range(count)]))
    state, action, embed = numbers(B, count * D + S * K), numbers(T, B, A), numbers(T, B, E)
    keep = (torch.rand(T, B, 1) > 0.3).double()
    keep[0] = torch.tensor([[1.0], [0.0], [1.0]])
    noise = torch.rand(T, B, S, K, dtype=torch.float64).log().neg()

    def joined(found: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return torch.cat([found[0], found[1].flatten(2), found[2].log().flatten(2)], -1)

    def fast() -> Tensor:
        driven = torch.stack([branch.cell.drive(action) for branch in branches], 2)
        seen = torch.stack([branch.posterior.drive(embed) for branch in branches], 2)
        return joined(posterior_scan(list(branches), state, driven, seen, keep, noise, 0.01))

    def straight() -> Tensor:
        actions, embeds = (x[:, :, None].expand(-1, -1, count, -1) for x in (action, embed))
        return joined(
            plain.posterior_scan([one.straight() for one in branches], state, actions, embeds, keep, noise, 0.01)
        )

    assert_same(fast, straight, [state, action, embed, *branches.parameters()])


def test_a_layer_is_its_equations() -> None:
    torch.manual_seed(0)
    network, x = loud(MLP(E, H, 1)), numbers(N, 2, E)
    assert_same(lambda: network(x), lambda: plain.layer(network, x), [x, *network.parameters()])


def test_norm_and_silu_in_one() -> None:
    torch.manual_seed(0)
    norm, x = loud(RMSNorm(6)), (10 * numbers(4, 5, 6)).detach().requires_grad_()
    assert_same(lambda: norm_silu(x, norm), lambda: plain.norm_silu(x, norm), [x, norm.scale])
    with torch.no_grad():
        torch.testing.assert_close(norm_silu(x, norm), plain.norm_silu(x, norm), rtol=0, atol=1e-12)


def test_products_are_products() -> None:
    """In float64 torch makes them; oneDNN's, in float32, are held against the same lines in test_product.py."""
    torch.manual_seed(0)
    x, weight, bias = numbers(N, 2, E), numbers(H, E), numbers(H)
    assert_same(lambda: product.linear(x, weight, bias), lambda: plain.linear(x, weight, bias), [x, weight, bias])
    assert_same(lambda: product.linear(x, weight), lambda: plain.linear(x, weight), [x, weight])
    x, weight, bias = numbers(N, G, E), numbers(G, E, H), numbers(G, 1, H)
    assert_same(lambda: product.blocks(x, weight, bias), lambda: plain.blocks(x, weight, bias), [x, weight, bias])
    layer, rows = loud(BlockLinear(G * E, G * H, G)), numbers(N, G * E)

    def apart() -> Tensor:
        biases = layer.bias.view(G, 1, H)
        return plain.blocks(rows.view(N, G, E), layer.weight.transpose(0, 1), biases).flatten(1)

    assert_same(lambda: layer(rows), apart, [rows, layer.weight, layer.bias])


def test_an_up_convolution_is_upsampling_and_a_convolution() -> None:
    torch.manual_seed(0)
    up, x = loud(UpConv(3, 5)), numbers(2, 3, 6, 4)
    assert_same(lambda: up(x), lambda: plain.up_convolution(up, x), [x, up.weight, up.bias])


@pytest.mark.parametrize("steps", [1, 2, 5, 16, 63])
def test_accumulate_is_the_loop(steps: int) -> None:
    torch.manual_seed(steps)
    base, decay, last = numbers(3, steps), torch.rand(3, steps).double().requires_grad_(), numbers(3, 1)
    given = [base, decay, last]
    assert_same(lambda: accumulate(*given), lambda: plain.accumulate(*given), given)

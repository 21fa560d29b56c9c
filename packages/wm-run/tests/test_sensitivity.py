"""Maps of a decoder's sensitivity, against Jacobians formed whole in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from wm_core import draws
from wm_core.images import ConvDecoder
from wm_run import filmstrip
from wm_run.jacobian import along, plain, share, weighted

SHAPE = (3, 4)  # S x K


def smooth() -> Callable[[Tensor], Tensor]:
    """z (N, S, K) -> images (N, 4, 5, 3), of which the left two columns do not look at z."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 60), nn.Sigmoid()).double()

    def decode(z: Tensor) -> Tensor:
        image = layers(z.flatten(1)).reshape(-1, 4, 5, 3)
        return torch.cat([image[:, :, :2].detach() * 0, image[:, :, 2:]], 2)

    return decode


def convolved() -> Callable[[Tensor], Tensor]:
    """Dreamer's decoder at 16 x 16, whose layers have gradients of their own and no forward-mode rule."""
    torch.manual_seed(0)
    layers = ConvDecoder((16, 16, 3), deter=8, stoch=12, depth=2, units=8).double()
    deter = torch.randn(2, 8, dtype=torch.float64)
    return lambda z: layers(deter, z.flatten(1))


def hand_made(z: Tensor) -> Tensor:
    """A critic with a known gradient: v = z_01^2 + 3 z_23, so dv = (2 z_01 at 01, 3 at 23)."""
    return z[:, 0, 1] ** 2 + 3 * z[:, 2, 3]


def jacobian(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """J (N, H, W, C, S * K) by automatic differentiation, one output after another."""
    whole = torch.autograd.functional.jacobian(lambda z: decode(z).sum(0), z)
    return whole.permute(3, 0, 1, 2, 4, 5).flatten(-2)


@pytest.fixture(params=[smooth, convolved])
def decode(request: pytest.FixtureRequest) -> Callable[[Tensor], Tensor]:
    return request.param()


@pytest.fixture
def z() -> Tensor:
    return torch.rand(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.2


def test_along_is_the_jacobian_times_a_direction(decode: Callable[[Tensor], Tensor], z: Tensor) -> None:
    direction = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = (jacobian(decode, z) * direction.flatten(1)[:, None, None, None]).sum(-1)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(along(decode, z, direction), expected, atol=1e-8, rtol=1e-5)


def test_the_weighted_map_is_the_jacobian_along_the_values_gradient(
    decode: Callable[[Tensor], Tensor], z: Tensor
) -> None:
    gradient = torch.zeros_like(z)
    gradient[:, 0, 1], gradient[:, 2, 3] = 2 * z[:, 0, 1], 3
    unit = (gradient / gradient.flatten(1).norm(dim=1)[:, None, None]).flatten(1)
    expected = (jacobian(decode, z) * unit[:, None, None, None]).sum(-1).abs().sum(-1)
    torch.testing.assert_close(weighted(decode, hand_made, z), expected, atol=1e-8, rtol=1e-5)
    # the value's scale is of no account, and a value that z does not move has no map
    torch.testing.assert_close(weighted(decode, lambda z: 7 * hand_made(z), z), expected, atol=1e-8, rtol=1e-5)
    assert not weighted(decode, lambda z: 0 * hand_made(z), z).any()


def test_the_plain_map_is_the_norm_of_the_jacobian(decode: Callable[[Tensor], Tensor], z: Tensor) -> None:
    expected = jacobian(decode, z).square().sum((-1, -2)).sqrt()
    with draws.drawing(draws.Generator(0)):
        found, few = plain(decode, z, probes=3000), plain(decode, z, probes=64)
    torch.testing.assert_close(found, expected, rtol=0.08, atol=1e-12)  # six deviations
    assert ((few - expected).abs() <= 0.5 * expected + 1e-12).all()


def test_pixels_that_do_not_look_at_the_latent_are_dark(z: Tensor) -> None:
    for found in (plain(smooth(), z, probes=4), weighted(smooth(), hand_made, z)):
        assert not found[:, :, :2].any() and bool((found[:, :, 2:] > 0).all())


def test_share_is_the_mean_over_frames_that_say_something() -> None:
    where = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.bool).view(4, 2, 2)
    maps = torch.tensor([[8.0, 1, 1, 0], [1, 2, 3, 4], [1, 1, 1, 1], [0, 0, 0, 0]]).view(4, 2, 2)
    assert share(maps, where) == pytest.approx((0.8 + 0.3) / 2)
    assert np.isnan(share(maps[2:], where[2:]))


def test_a_sheet_of_maps_shows_the_imagined_steps_alone() -> None:
    true = np.zeros((2, 5, 16, 16, 3), np.float32)
    true[:, 3:] = 1.0
    predicted, valid = np.full_like(true, 0.5), np.ones((2, 5), bool)
    valid[1, 4] = False
    one = np.zeros((2, 3, 16, 16), np.float32)
    one[:, :, :8] = np.linspace(1, 2, 3)[None, :, None, None]
    page = filmstrip.maps(true, predicted, one, one.swapaxes(2, 3), valid, context=2)
    cells = page[filmstrip.LINE :, filmstrip.MARGIN :]
    side = 64 + filmstrip.GAP
    assert page.shape == (filmstrip.LINE + 2 * (4 * side + 3 * filmstrip.GAP), filmstrip.MARGIN + 3 * side, 3)

    def cell(row: int, line: int, column: int) -> np.ndarray:
        y = row * (4 * side + 3 * filmstrip.GAP) + line * side
        return cells[y : y + 64, column * side : column * side + 64]

    assert (cell(0, 0, 0) == 128).all()  # the dream
    hot = cell(0, 1, 2)
    assert (hot[:32] == 192).all() and (hot[32:] == 64).all()  # white and black, half and half with the dream
    assert np.array_equal(cell(0, 2, 2), hot.swapaxes(0, 1))
    assert [int(cell(0, 3, t).max()) for t in range(3)] == [0, 255, 255]  # the truth, from step 3 on
    assert (cell(1, 3, 2) == filmstrip.GONE).all() and (cell(1, 0, 2) == filmstrip.GONE).all()

"""Patches against loops: each one's features are its own before the mixing, a sprite that moves a patch moves its features a cell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.observations import Observations
from wm_core.patches import PatchDecoder, PatchEncoder
from wm_core.types import Latent

SHAPE = (12, 20, 3)  # 3x5 patches of 4


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """RMS over the last axis, then SiLU."""
    return F.silu(x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.scale)  # type: ignore[operator]


def mixed(cells: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 3x3 convolution of cells (h, w, d), in a loop."""
    high, wide, _ = cells.shape
    padded = F.pad(cells, (0, 0, 1, 1, 1, 1))
    out = torch.zeros_like(cells)
    for i in range(high):
        for j in range(wide):
            out[i, j] = torch.einsum("ocij,ijc->o", layer.weight, padded[i : i + 3, j : j + 3])
    return out


def test_the_encoder_is_a_loop_over_patches() -> None:
    torch.manual_seed(0)
    encoder = PatchEncoder(SHAPE, depth=5).double()
    image = torch.randint(256, SHAPE, dtype=torch.uint8)
    cells = torch.zeros(3, 5, 5, dtype=torch.float64)
    for i in range(3):
        for j in range(5):
            patch = image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].double() / 255 - 0.5
            cells[i, j] = torch.einsum("ocij,ijc->o", encoder.patches.weight, patch)
    expected = normed(mixed(normed(cells, encoder.norms[0]), encoder.mixing), encoder.norms[1]).flatten()
    assert encoder.width == len(expected)
    assert torch.allclose(encoder(image[None].double())[0], expected, atol=1e-12)


def test_the_decoder_is_a_loop_over_patches() -> None:
    torch.manual_seed(0)
    decoder = PatchDecoder(SHAPE, deter=2, stoch=4, depth=5, units=0).double()
    deter, stoch = torch.randn(2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    cells = decoder.inputs(torch.cat([stoch, deter])).view(3, 5, 5)
    cells = normed(mixed(normed(cells, decoder.norms[0]), decoder.mixing), decoder.norms[1])
    image = torch.zeros(SHAPE, dtype=torch.float64)
    for i in range(3):
        for j in range(5):
            patch = torch.einsum("d,dcij->ijc", cells[i, j], decoder.out.weight) + decoder.out.bias + 0.5
            image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = patch
    assert torch.allclose(decoder(deter[None], stoch[None])[0], image, atol=1e-12)


def test_a_sprite_that_moves_by_a_patch_moves_its_features_by_a_cell() -> None:
    torch.manual_seed(0)
    encoder = PatchEncoder((28, 28, 3), depth=6)
    sprite = torch.randint(256, (4, 4, 3), dtype=torch.uint8)
    maps = []
    for column in (2, 3):
        image = torch.zeros(28, 28, 3, dtype=torch.uint8)
        image[12:16, 4 * column : 4 * column + 4] = sprite
        maps.append(encoder(image[None]).view(7, 7, 6))
    near = maps[0][2:5, 1:4]  # the sprite's cell and those around it
    assert torch.allclose(near, maps[1][2:5, 2:5], atol=1e-6)
    assert (near - maps[0][0, 6]).abs().amax() > 0.1  # it is seen


def test_patches_of_other_sizes() -> None:
    encoder, decoder = (
        PatchEncoder((24, 16, 1), depth=3, patch=8),
        PatchDecoder((24, 16, 1), deter=2, stoch=2, depth=3, units=0, patch=8),
    )
    assert encoder(torch.zeros(2, 5, 24, 16, 1, dtype=torch.uint8)).shape == (2, 5, 3 * 2 * 3)
    assert decoder(torch.zeros(2, 5, 2), torch.zeros(2, 5, 2)).shape == (2, 5, 24, 16, 1)


@pytest.mark.parametrize("shape", [(45, 44, 3), (44, 42, 3), (3, 3, 1)])
def test_what_patches_do_not_tile_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"4x4 do not tile {shape[0]}x{shape[1]}"):
        PatchEncoder(shape, depth=2)
    with pytest.raises(ValueError, match=f"4x4 do not tile {shape[0]}x{shape[1]}"):
        PatchDecoder(shape, deter=1, stoch=1, depth=2, units=0)


def test_they_stand_where_other_encoders_of_images_do() -> None:
    seen = Observations(images={"image": (44, 44, 3)})
    encoder = MultiEncoder(seen, units=8, depth=2, images=PatchEncoder)
    decoder = MultiDecoder(seen, widths={"deter": 6, "stoch": 4}, units=8, depth=2, images=PatchDecoder)
    image = torch.randint(256, (2, 5, 44, 44, 3), dtype=torch.uint8)
    assert encoder({"image": image, "first": torch.zeros(2, 5)})["obs"].shape == (2, 5, encoder.width)
    shown = decoder(Latent(torch.zeros(2, 5, 6), torch.zeros(2, 5, 2, 2)))["image"]
    assert shown.mode().shape == image.shape and shown.loss(image).shape == (2, 5)

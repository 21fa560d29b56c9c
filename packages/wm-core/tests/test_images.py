"""Images whose sides are no multiples of 16, through the strided encoder and back: sizes, a plain loop, the adjoint, gradients."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.errors import UserError
from wm_core.images import ConvEncoder, StridedDecoder, StridedEncoder, doubled, halved, halvings
from wm_core.observations import describe
from wm_core.patches import PatchDecoder, PatchEncoder
from wm_core.types import Latent


def shows(*shape: int) -> SimpleNamespace:
    """A space of one picture."""
    box = type("Box", (), {"shape": shape, "dtype": np.dtype(np.uint8), "high": np.full(shape, 255)})()
    return SimpleNamespace(spaces={"image": box})


def test_44_goes_down_to_3_and_back_to_44() -> None:
    seen = describe(shows(44, 44, 3), multiple=StridedEncoder.multiple)
    encoder = MultiEncoder(seen, units=8, depth=2, images=StridedEncoder)
    decoder = MultiDecoder(seen, widths={"deter": 6, "stoch": 4}, units=8, depth=2, images=StridedDecoder)
    image = torch.randint(256, (2, 5, 44, 44, 3), dtype=torch.uint8)
    sizes: list[tuple[int, ...]] = []
    for layer in (*encoder.conv.convs, *decoder.conv.ups, decoder.conv.out):
        layer.register_forward_hook(lambda layer, inputs, out: sizes.append(tuple(out.shape[-2:])))
    embed = encoder({"image": image, "first": torch.zeros(2, 5, dtype=torch.bool)})["obs"]
    assert embed.shape == (2, 5, encoder.width) and encoder.width == 3 * 3 * 16
    shown = decoder(Latent(torch.zeros(2, 5, 6), torch.zeros(2, 5, 2, 2)))["image"]
    assert shown.mode().shape == image.shape and shown.loss(image).shape == (2, 5)
    assert sizes == [(22, 22), (11, 11), (6, 6), (3, 3), (6, 6), (12, 12), (22, 22), (44, 44)]  # 12 is cut to 11


@pytest.mark.parametrize("shape", [(17, 40, 1), (44, 44, 3), (33, 18, 2), (88, 88, 3), (1, 5, 1)])
def test_the_decoder_gives_the_size_that_the_encoder_took(shape: tuple[int, int, int]) -> None:
    encoder, decoder = StridedEncoder(shape, depth=1), StridedDecoder(shape, deter=3, stoch=2, depth=1, units=0)
    assert encoder(torch.zeros(2, 3, *shape, dtype=torch.uint8)).shape == (2, 3, encoder.width)
    assert decoder(torch.zeros(2, 3, 3), torch.zeros(2, 3, 2)).shape == (2, 3, *shape)
    assert decoder.low[0] * decoder.low[1] * decoder.low[2] == encoder.width


def test_halvings_round_up() -> None:
    for side in range(1, 200):
        assert halvings(side) == tuple(-(-side // 2**k) for k in range(5))


@pytest.mark.parametrize(("high", "wide"), [(11, 6), (6, 11), (7, 3), (8, 4), (1, 1)])
def test_halving_equals_a_plain_loop(high: int, wide: int) -> None:
    """Whatever lies beyond a border is zero, also in the row that an odd side is given."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(2, 3, 4, 2, 1, bias=False).double(), torch.randn(2, 2, high, wide, dtype=torch.float64)
    found = halved(layer, x)
    expected = torch.zeros(2, 3, (high + 1) // 2, (wide + 1) // 2, dtype=torch.float64)
    for row, column in np.ndindex(*expected.shape[-2:]):
        for i, j in np.ndindex(4, 4):
            at, beside = 2 * row + i - 1, 2 * column + j - 1
            if 0 <= at < high and 0 <= beside < wide:
                expected[..., row, column] += x[..., at, beside] @ layer.weight[..., i, j].T
    assert torch.allclose(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("high", "wide"), [(11, 6), (6, 11), (7, 3), (44, 22), (1, 1)])
def test_doubling_is_the_adjoint_of_halving(high: int, wide: int) -> None:
    """<halved(x), y> = <x, doubled(y)> with one kernel: the picture is cut where the encoder's was padded."""
    torch.manual_seed(0)
    down = nn.Conv2d(2, 3, 4, 2, 1, bias=False).double()
    up = nn.ConvTranspose2d(3, 2, 4, 2, 1, bias=False).double()
    up.weight = down.weight
    x = torch.randn(2, 2, high, wide, dtype=torch.float64)
    y = torch.randn(2, 3, (high + 1) // 2, (wide + 1) // 2, dtype=torch.float64)
    assert torch.allclose((halved(down, x) * y).sum(), (x * doubled(up, y, high, wide)).sum(), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "mirror", "shape"), [(StridedEncoder, StridedDecoder, (11, 6, 1)), (PatchEncoder, PatchDecoder, (8, 4, 1))]
)
def test_gradients_in_float64(kind: type, mirror: type, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    encoder, decoder = kind(shape, depth=1), mirror(shape, deter=2, stoch=2, depth=1, units=0)
    for module in (encoder, decoder):
        module.double()
    x = torch.rand(1, *shape, dtype=torch.float64) * 255
    assert torch.autograd.gradcheck(encoder, x.requires_grad_(), eps=1e-3)
    latent = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: decoder(one, one), latent)
    missing = [name for name, one in encoder.named_parameters() if one.grad is None]
    encoder(x).square().sum().backward()
    assert missing and all(one.grad is not None and one.grad.abs().sum() > 0 for one in encoder.parameters())


def test_multiples_of_16_are_what_they_were() -> None:
    """To the bit, the plain composition that stood here before odd sides were taken."""
    torch.manual_seed(0)
    encoder, image = StridedEncoder((32, 48, 3), depth=2), torch.randint(256, (3, 32, 48, 3), dtype=torch.uint8)
    x = image.permute(0, 3, 1, 2).div(255).sub_(0.5)
    for layer, norm in zip(encoder.convs, encoder.norms, strict=True):
        x = norm(layer(x))
    assert torch.equal(encoder(image), x.permute(0, 2, 3, 1).reshape(3, -1))
    decoder, deter, stoch = StridedDecoder((32, 48, 3), deter=4, stoch=3, depth=2, units=0), *torch.randn(2, 3, 4)
    x = decoder.inputs(torch.cat([stoch[:, :3], deter], -1)).reshape(-1, 2, 3, 16).permute(0, 3, 1, 2)
    for up, norm in zip(decoder.ups, decoder.norms, strict=True):
        x = norm(up(x))
    assert torch.equal(decoder(deter, stoch[:, :3]), (decoder.out(x) + 0.5).permute(0, 2, 3, 1))


def test_an_encoder_says_which_sides_it_takes() -> None:
    space = shows(44, 44, 3)
    with pytest.raises(UserError, match="'image' is 44x44; the encoder needs sides that are multiples of 16"):
        describe(space)
    with pytest.raises(UserError, match="multiples of 16"):
        describe(space, multiple=ConvEncoder.multiple)
    assert describe(space, multiple=StridedEncoder.multiple).images == {"image": (44, 44, 3)}

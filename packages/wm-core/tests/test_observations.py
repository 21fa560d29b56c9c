"""What observations are taken for, and that encoders and decoders see them so."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from wm_core.distributions import Categorical, SymlogMSE
from wm_core.encoders import Discretes, MultiDecoder, MultiEncoder, OneHotVectors, SymlogInput, VectorInput
from wm_core.errors import UserError
from wm_core.observations import Observations, describe
from wm_core.twohot import symlog
from wm_core.types import Latent


def test_discrete_values_as_vectors_of_2023():
    """One-hots are squashed on both sides, and learned by their squared error; what is predicted is still an index."""
    seen = Observations(vectors={"b": 2}, discretes={"a": (2, 3), "c": (4,)})
    steps = {"first": torch.zeros(1, 2, dtype=torch.bool), "b": torch.tensor([[[0.5, -3.0], [7.0, 0.0]]])}
    steps |= {"a": torch.tensor([[[1, 2], [0, 0]]]), "c": torch.tensor([[3, 1]])}
    hot = (
        torch.tensor([[[0, 1, 0, 0, 1], [1, 0, 1, 0, 0]]]).float(),
        torch.tensor([[[0, 0, 0, 1], [0, 1, 0, 0]]]).float(),
    )
    one = math.log(2)
    assert SymlogInput(seen)(steps).equal(torch.cat([hot[0] * one, symlog(steps["b"]), hot[1] * one], -1))
    assert VectorInput(seen)(steps).equal(torch.cat([hot[0], symlog(steps["b"]), hot[1]], -1))
    pred = torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(0))
    found = OneHotVectors(pred, (2, 3))
    torch.testing.assert_close(found.loss(steps["a"]), (pred - one * hot[0]).square().sum(-1))
    assert found.mode().equal(torch.stack([pred[..., :2].argmax(-1), pred[..., 2:].argmax(-1)], -1))
    decoder = MultiDecoder(seen, widths={"deter": 3, "stoch": 4}, units=4, depth=2, values=OneHotVectors)
    latent = Latent(torch.zeros(1, 2, 3), torch.zeros(1, 2, 2, 2))
    assert {key: type(found).__name__ for key, found in decoder(latent).items()} == {
        "a": "OneHotVectors",
        "b": "Vector",
        "c": "OneHotVectors",
    }


class _Box:
    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, type("D", (), {"name": dtype})


class _Dict:
    def __init__(self, **spaces):
        self.spaces = spaces


_Box.__name__ = "Box"


@pytest.mark.parametrize(
    ("space", "word"),
    [
        (_Dict(image=_Box((60, 64, 3), "uint8")), "multiples of 16"),
        (_Dict(image=SimpleNamespace(shape=(3,))), "cannot read"),
        (_Dict(reward=_Box((2,), "float32")), "reserved"),
        (_Dict(), "shows nothing"),
        (_Dict(a=_Box((0,), "float32"), b=_Box((2,), "float32")), "'a' of shape"),
        (_Dict(a=_Box((64, 64, 3), "uint8"), b=_Box((32, 32, 3), "uint8")), "one size"),
    ],
)
def test_unreadable_observations_are_told_in_a_sentence(space, word):
    with pytest.raises(UserError, match=word):
        describe(space)


def test_boxes_of_any_rank_are_vectors_and_small_bytes_are_symbols():
    grid, dark, deep = _Box((7, 5, 3), "uint8"), _Box((32, 32, 3), "uint8"), _Box((2, 3, 4, 5), "float32")
    for box, high in ((grid, 10), (dark, 10)):
        box.high = np.full(box.shape, high)
    flags, floats = _Box((3, 3, 2), "bool"), _Box((20, 20, 3), "float32")
    wide = type("Discrete", (), {"n": 2**31, "shape": ()})()
    seen = describe(_Dict(grid=grid, dark=dark, deep=deep, flags=flags, floats=floats, wide=wide))
    assert seen.images == {"dark": (32, 32, 3)} and seen.discretes == {"grid": (11,) * 105}
    assert seen.vectors == {"deep": 120, "flags": 18, "floats": 1200, "wide": 1}


@pytest.mark.parametrize("sizes", [(3, 3), (5,) * 40, (4,), (2, 5, 2)])
@pytest.mark.parametrize("kind", [Discretes, OneHotVectors])
def test_symbols_looked_at_together_are_those_looked_at_one_by_one(sizes, kind):
    """To the bit, gradients too: a grid has hundreds, and what has two of one size keeps its numbers."""
    logits = torch.randn(4, 6, sum(sizes), requires_grad=True)
    target = torch.stack([torch.randint(n, (4, 6)) for n in sizes], -1)
    parts = list(zip(logits.split(list(sizes), -1), target.unbind(-1), sizes, strict=True))
    if kind is Discretes:
        alone = torch.stack([Categorical(part).loss(index) for part, index, _ in parts]).sum(0)
    else:
        hot = torch.cat([torch.nn.functional.one_hot(index, n) for _, index, n in parts], -1)
        alone = SymlogMSE(logits).loss(hot)
    found = kind(logits, sizes)
    together = found.loss(target)
    assert torch.equal(together, alone)
    gradients = [torch.autograd.grad(loss.mean(), logits, retain_graph=True)[0] for loss in (together, alone)]
    assert torch.equal(*gradients)
    assert torch.equal(found.mode(), torch.stack([part.argmax(-1) for part, _, _ in parts], -1))
    seen = Observations(discretes={"a": sizes})
    steps = {"a": target, "first": torch.zeros(4, 6, dtype=torch.bool)}
    assert VectorInput(seen)(steps).equal(
        torch.cat([torch.nn.functional.one_hot(index, n) for _, index, n in parts], -1).float()
    )


def test_mixed_observations_are_encoded_and_decoded():
    seen = Observations(images={"image": (32, 48, 3)}, vectors={"speed": 2}, discretes={"gear": (5, 3)})
    encoder = MultiEncoder(seen, units=8, depth=2)
    steps = {
        "image": torch.randint(0, 255, (2, 3, 32, 48, 3), dtype=torch.uint8),
        "speed": torch.randn(2, 3, 2),
        "gear": torch.tensor([[[4, 2]] * 3] * 2),
        "first": torch.zeros(2, 3, dtype=torch.bool),
    }
    assert encoder(steps)["obs"].shape == (2, 3, encoder.width) == (2, 3, 8 + 2 * 3 * 8)
    decoder = MultiDecoder(seen, widths={"deter": 16, "stoch": 12}, units=8, depth=2)
    found = decoder(Latent(torch.randn(2, 3, 16), torch.randn(2, 3, 4, 3)))
    assert {key: tuple(dist.loss(steps[key]).shape) for key, dist in found.items()} == dict.fromkeys(
        steps.keys() - {"first"}, (2, 3)
    )
    assert found["image"].mode().shape == steps["image"].shape
    plain = (found["image"].mode() - steps["image"] / 255).square().sum((-1, -2, -3))
    assert torch.allclose(found["image"].loss(steps["image"]), plain, rtol=1e-5)
    assert torch.allclose(
        found["speed"].loss(steps["speed"]), (found["speed"].pred - symlog(steps["speed"])).square().sum(-1)
    )

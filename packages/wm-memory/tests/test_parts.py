"""Norms, bottleneck, frame encoders, pair attention, decoder and GRU. Sizes: B batch, T time, E memory features."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from wm_core import draws
from wm_core.encoders import MultiEncoder
from wm_core.fast.product import Linear
from wm_core.norm import RMSNorm
from wm_core.observations import Observations
from wm_core.types import Latent
from wm_memory import (
    BottleneckEncoder,
    CrossAttention,
    Frames,
    Gaussian,
    MemoryDecoder,
    MemoryEncoder,
    NormGRU,
    PairAttention,
    SoftmaxMatch,
    Squared,
)
from wm_memory.frames import ImageFrames
from wm_memory.norms import BatchNorm, evaluating

VECTOR = Observations(vectors={"vector": 4})


def vector_steps(rows: int = 6, length: int = 5) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"vector": torch.randn(rows, length, 4), "first": torch.zeros(rows, length, dtype=torch.bool)}


def test_batch_norm_over_the_last_axis_equals_torchs() -> None:
    torch.manual_seed(0)
    for shape, theirs in (((4, 7, 5), nn.BatchNorm1d(5)), ((4, 3, 2, 5), nn.BatchNorm2d(5))):
        ours, x = BatchNorm(5), torch.randn(shape) * 3 + 1
        move = (lambda v: v.flatten(0, 1)) if len(shape) == 3 else (lambda v: v.permute(0, 3, 1, 2))
        for _ in range(3):
            assert torch.allclose(move(ours(x)), theirs(move(x)), atol=1e-5)
        ours.eval(), theirs.eval()
        assert torch.allclose(move(ours(x)), theirs(move(x)), atol=1e-5)
        for one, two in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.allclose(one, two)


def test_weighted_rows_stand_for_repeated_ones() -> None:
    torch.manual_seed(0)
    x, count = torch.randn(4, 5), torch.tensor([3.0, 1.0, 0.0, 6.0])
    one, two = BatchNorm(5), BatchNorm(5)
    repeated = x.repeat_interleave(count.long(), 0)
    wanted = two(repeated)
    found = one.weighted(x, count).repeat_interleave(count.long(), 0)
    assert torch.allclose(found, wanted, atol=1e-6)
    for name, value in two.state_dict().items():
        assert torch.allclose(one.state_dict()[name], value), name


def test_evaluating_restores_each_part() -> None:
    module = nn.Sequential(nn.Linear(2, 2), BatchNorm(2).eval()).train()
    module[1].eval()
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert module.training and module[0].training and not module[1].training


def test_bottleneck_samples_with_its_mean_and_deviation() -> None:
    torch.manual_seed(0)
    bottleneck, f = Gaussian(8, 4, hidden=16).eval(), torch.randn(3, 8)
    mean, std = bottleneck.moments(f)
    with draws.drawing(draws.Fixed()):
        assert torch.equal(bottleneck(f), mean)
    many = bottleneck(f.expand(20000, -1, -1))
    assert torch.allclose(many.mean(0), mean, atol=0.05)
    assert torch.allclose(many.std(0), std, atol=0.05)
    assert (std > 1e-3).all()
    normal = torch.distributions.Normal(mean, std)
    wanted = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    assert torch.allclose(bottleneck.nats(f), wanted, atol=1e-5)


def test_frames_equal_torchs_layers() -> None:
    torch.manual_seed(0)
    frames = ImageFrames((32, 32, 3), depth=2)
    image = torch.randint(0, 256, (2, 3, 32, 32, 3), dtype=torch.uint8)
    x = image.flatten(0, 1).permute(0, 3, 1, 2).float() / 255 - 0.5
    for stage in frames.stages:
        x = F.conv2d(x, stage.weight, stage.bias, stride=2, padding=1)
        x = F.relu(
            (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
        )
    wanted = x.permute(0, 2, 3, 1).flatten(1).unflatten(0, (2, 3))
    assert torch.allclose(frames(image), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="multiples of 16"):
        ImageFrames((60, 64, 3))


def test_frames_read_images_vectors_and_discrete_values_together() -> None:
    seen = Observations(images={"image": (16, 16, 1)}, vectors={"vector": 4}, discretes={"cue": (5,)})
    frames = Frames(seen, width=12, depth=2, units=8)
    steps = vector_steps(2, 3) | {
        "image": torch.randint(0, 256, (2, 3, 16, 16, 1), dtype=torch.uint8),
        "cue": torch.randint(5, (2, 3)),
    }
    out = frames(steps)
    assert out.shape == (2, 3, 12)
    for name, other in (
        ("vector", torch.ones(2, 3, 4)),
        ("cue", (steps["cue"] + 1) % 5),
        ("image", 255 - steps["image"]),
    ):
        assert not torch.allclose(frames(steps | {name: other}), out, atol=1e-3), name


def test_key_is_f_o_by_its_running_statistics_without_gradient() -> None:
    encoder = MemoryEncoder(Frames(VECTOR, width=8, units=6), MultiEncoder(VECTOR, units=6, depth=2))
    steps = vector_steps()
    embed = encoder(steps)
    assert encoder.frames.training and encoder.frames.mlp[1].num_batches_tracked == 1  # the second pass adds nothing
    with evaluating(encoder):
        later = encoder(steps)
    assert torch.allclose(embed["key"], later["key"])
    assert not torch.allclose(embed["key"], embed["memory"], atol=1e-3)
    assert torch.equal(later["key"], later["memory"])  # evaluation has one mode, as the laws need
    assert embed["memory"].requires_grad and not embed["key"].requires_grad


@pytest.mark.parametrize(("norm", "passes"), [(BatchNorm, 2), (RMSNorm, 1)])
def test_one_pass_is_enough_without_batch_norm(norm: type[nn.Module], passes: int) -> None:
    frames = Frames(VECTOR, width=8, units=6, norm=norm)
    calls: list[int] = []
    frames.register_forward_hook(lambda *_: calls.append(1))
    encoder = MemoryEncoder(frames, MultiEncoder(VECTOR, units=6, depth=2))
    embed = encoder(vector_steps())
    assert len(calls) == passes
    assert torch.equal(embed["key"], embed["memory"]) == (passes == 1)


def test_bottleneck_encoder_narrows_obs_alone() -> None:
    inner = MemoryEncoder(Frames(VECTOR, width=8, units=6), MultiEncoder(VECTOR, units=6, depth=2))
    embed = BottleneckEncoder(inner, Gaussian(6, 3, hidden=4))(vector_steps())
    assert embed["obs"].shape[-1] == 3 and embed["memory"].shape[-1] == 8


def test_pair_attention_equals_torchs_on_two_tokens_and_its_queries_learn() -> None:
    torch.manual_seed(0)
    ours, theirs = PairAttention(16, heads=4), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    pair = torch.randn(5, 2, 16)
    wanted = F.layer_norm(pair + theirs(pair, pair, pair)[0], (16,))
    out = ours(pair)
    assert torch.allclose(out, wanted, atol=1e-5)
    out.sin().sum().backward()
    q, k, v = ours.qkv.weight.grad.chunk(3)
    assert min(part.abs().max() for part in (q, k, v)) > 1e-6


def test_cross_attention_is_eq_8_with_the_other_as_only_key() -> None:
    torch.manual_seed(0)
    cross, pair = CrossAttention(16), torch.randn(5, 2, 16)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight[32:] = cross.value.weight
        theirs.in_proj_bias[32:] = cross.value.bias
        theirs.out_proj.load_state_dict(cross.out.state_dict())
    heard = [theirs(pair[:, i : i + 1], pair[:, 1 - i : 2 - i], pair[:, 1 - i : 2 - i])[0] for i in (0, 1)]
    assert torch.allclose(cross(pair), F.layer_norm(pair + torch.cat(heard, 1), (16,)), atol=1e-5)


def test_memory_losses_have_no_gradient_to_their_target() -> None:
    prediction, target = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    wanted = F.cross_entropy(prediction, target.softmax(-1), reduction="none")
    assert torch.allclose(SoftmaxMatch(prediction).loss(target), wanted, atol=1e-6)
    assert torch.allclose(Squared(prediction).loss(target), (prediction - target).square().mean(-1))
    (SoftmaxMatch(prediction).loss(target) + Squared(prediction).loss(target)).sum().backward()
    assert target.grad is None and prediction.grad is not None


def test_memory_decoder_ends_plainly() -> None:
    decoder = MemoryDecoder(8, widths={"deter": 6, "stoch": 12}, units=16, distribution=Squared)
    assert [type(layer) for layer in decoder.mlp] == [Linear, BatchNorm, nn.ReLU] * 2 + [Linear]
    prediction = decoder(Latent(torch.randn(2, 5, 6), torch.zeros(2, 5, 4, 3))).mode()
    assert prediction.shape == (2, 5, 8) and prediction.min() < 0


def test_norm_gru_keeps_its_state_when_the_update_gate_is_shut() -> None:
    torch.manual_seed(0)
    cell = NormGRU(deter=8, state=(8, 6), action=3, hidden=5)
    deter, stoch, action = torch.randn(2, 8), torch.randn(2, 6), torch.randn(2, 3)
    x = torch.cat([deter, stoch, action], -1) @ cell.inputs.weight.t() + cell.inputs.bias
    x = F.silu(F.rms_norm(x, (5,), eps=1e-4))
    gates = F.rms_norm(torch.cat([x, deter], -1) @ cell.gates.weight.t(), (24,), eps=1e-4)
    reset, cand, update = gates[:, :8].sigmoid(), gates[:, 8:16], (gates[:, 16:] - 1).sigmoid()
    wanted = update * torch.tanh(reset * cand) + (1 - update) * deter
    assert torch.allclose(cell(deter, (deter, stoch), cell.drive(action)), wanted, atol=1e-5)
    with torch.no_grad():
        cell.gates_norm.scale[16:] = 0
    mixed = cell(deter, (deter, stoch), cell.drive(action))  # sigmoid(-1) of the new
    assert (mixed - deter).abs().max() < 0.27 * (1 + deter.abs().max())

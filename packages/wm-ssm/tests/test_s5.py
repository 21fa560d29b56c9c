"""S5, its block and its stack: golden values, the layer against a loop written out, chunks, resets, starts."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wm_ssm import S5, S5Block, S5Stack, bilinear, by_name, hippo_n, plain, zoh

GOLDEN = [0.352, 1.372, 2.9, 5.09, 8.362, 13.834, 25.629, 80.966]  # of the authors' code, blocks of 16


def stack(**options: Any) -> S5Stack:
    """Two layers whose initial states are learned to something."""
    torch.manual_seed(0)
    made = S5Stack(12, 32, 2, blocks=4, **options)
    for layer in made.modules():
        if isinstance(layer, S5):
            nn.init.normal_(layer.start)
    return made


def steps(rows: int = 3, length: int = 70, width: int = 12) -> tuple[Tensor, Tensor]:
    """Tokens and firsts: at step 0 of one row, within, twice in a row, and at the end."""
    tokens, first = torch.randn(rows, length, width), torch.zeros(rows, length, dtype=torch.bool)
    first[0, [0, 20, 21, -1]] = first[1, 40] = True
    return tokens, first


# ---- golden values


def test_the_spectrum_is_the_one_of_the_released_code() -> None:
    spectrum, vectors = hippo_n(16)
    assert (spectrum.real + 0.5).abs().max() < 1e-12
    assert [round(x, 3) for x in spectrum.imag[8:].tolist()] == GOLDEN
    torch.testing.assert_close(spectrum.imag, -spectrum.imag.flip(0))
    layer = S5(4, 128)  # 8 blocks of 16
    assert layer.lambda_re.eq(-0.5).all()
    for block in layer.lambda_im.view(8, 16):
        torch.testing.assert_close(block[8:], torch.tensor(GOLDEN), rtol=1e-4, atol=6e-4)
    # and it diagonalises HiPPO-LegS + p p^T, entry by entry
    made = vectors @ spectrum.diag() @ vectors.mH
    for n in range(16):
        for k in range(16):
            legs = -math.sqrt((2 * n + 1) * (2 * k + 1)) if n > k else (-(n + 1.0) if n == k else 0.0)
            assert abs(made[n, k] - legs - math.sqrt((n + 0.5) * (k + 0.5))) < 1e-10


def test_initial_scales() -> None:
    torch.manual_seed(0)
    width, state = 512, 128
    layer = S5(width, state)
    assert abs(layer.B.square().sum(-1).mean() * state - 1) < 0.02  # |B|^2 = 1 / P
    assert abs(layer.C.square().mean() * width * state - 1) < 0.02  # of each part: 1 / (H P)
    assert abs(S5(width, state, c_scale=math.sqrt(width)).C.square().mean() * state - 1) < 0.02
    assert abs(layer.D.mean()) < 0.15 and abs(layer.D.std() - 1) < 0.1
    step = layer.log_step.exp()
    assert 1e-3 <= step.min() < 2e-3 and 5e-2 < step.max() <= 1e-1
    assert abs(layer.log_step.mean() - math.log(1e-2)) < 0.4  # the middle of the logarithms
    assert not layer.start.any()


def test_b_and_c_are_drawn_real_and_in_the_coordinates_of_the_spectrum() -> None:
    """V B is the real matrix that was drawn, cut at two deviations: B alone is complex."""
    torch.manual_seed(0)
    _, vectors = hippo_n(16)
    drawn = vectors @ torch.view_as_complex(S5(64, 128).B.detach().double()).unflatten(0, (8, 16))
    assert drawn.imag.abs().max() < 1e-6
    assert drawn.real.abs().max() < 2 / math.sqrt(128) / 0.8796 + 1e-4


def test_discretisations_solve_the_equation() -> None:
    """x' = L x + u under constant u: zero-order hold is exact for any step, bilinear to third order of it."""
    spectrum = torch.tensor([-0.5 + 3j, -0.5 - 0.352j], dtype=torch.complex128)
    for step in (0.1, 0.01):
        exact = torch.exp(spectrum * step), (torch.exp(spectrum * step) - 1) / spectrum
        for found, wanted in zip(zoh(spectrum, torch.tensor(step)), exact, strict=True):
            torch.testing.assert_close(found, wanted)
        for found, wanted in zip(bilinear(spectrum, torch.tensor(step)), exact, strict=True):
            assert (found - wanted).abs().max() < 10 * step**3


# ---- the layer


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("discretise", [bilinear, zoh])
def test_layer_equals_its_plain_lines(discretise: Any, negative: bool) -> None:
    """Outputs, states, and the gradients of everything, in float64."""
    torch.manual_seed(0)
    layer = S5(6, 16, blocks=2, discretise=discretise, negative=negative).double()
    nn.init.normal_(layer.start)
    tokens, first = steps(width=6)
    given = [torch.randn(3, 32).double(), tokens.double()]
    pulls = torch.randn(3, 70, 6).double(), torch.randn(3, 70, 32).double()
    found = []
    for call in (layer, lambda *inputs: plain.s5(layer, *inputs)):
        leaves = [x.clone().requires_grad_() for x in given]
        out, hidden = call(*leaves, first)[:2]
        loss = (out * pulls[0]).sum() + (hidden * pulls[1]).sum()
        found.append([out, hidden, *torch.autograd.grad(loss, [*leaves, *layer.parameters()])])
    for fast, straight in zip(*found, strict=True):
        assert straight.abs().max() > 0
        torch.testing.assert_close(fast, straight, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(layer(*given, first)[2], found[1][1][:, -1], rtol=1e-11, atol=1e-11)


def test_discretisations_are_their_formulas() -> None:
    torch.manual_seed(0)
    layer = S5(6, 16, blocks=2).double()
    spectrum, step = torch.complex(layer.lambda_re, layer.lambda_im), layer.log_step.exp()
    g, exact = 1 / (1 - step / 2 * spectrum), torch.exp(step * spectrum)
    wanted = {bilinear: (g * (1 + step / 2 * spectrum), g * step), zoh: (exact, (exact - 1) / spectrum)}
    for discretise, numbers in wanted.items():
        for found, number in zip(discretise(spectrum, step), numbers, strict=True):
            torch.testing.assert_close(found, number)


def test_block_equals_its_equations() -> None:
    block = S5Block(12, 32)
    nn.init.normal_(block.gate.bias)
    tokens, first = steps()
    mixed = block.s5(block.initial(3), tokens, first)[0]
    w1, w2 = block.gate.weight.chunk(2)
    b1, b2 = block.gate.bias.chunk(2)
    s = 0.5 * mixed * (1 + torch.tanh(math.sqrt(2 / math.pi) * (mixed + 0.044715 * mixed**3)))
    s = tokens + (s @ w1.T + b1) * torch.sigmoid(s @ w2.T + b2)
    wanted = (s - s.mean(-1, keepdim=True)) / (s.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(block(block.initial(3), tokens, first)[0], wanted)


def test_stack_hands_each_layer_its_state_and_shows_all() -> None:
    model = stack(out=20)
    tokens, first = steps()
    carry = torch.randn(3, model.hidden_width)
    out, hidden, after, _ = model(carry, tokens, first)
    one, low, _, _ = model.blocks[0](carry[:, :64], tokens, first)
    two, high, _, _ = model.blocks[1](carry[:, 64:], one, first)
    assert hidden.equal(torch.cat([low, high], -1)) and after.equal(hidden[:, -1])
    torch.testing.assert_close(out, nn.functional.silu(model.out[0](two)))
    assert out.shape == (3, 70, model.width)


# ---- time


@pytest.mark.parametrize("size", [1, 7, 64])
def test_pieces_equal_the_whole(size: int) -> None:
    """Down to single recurrent steps, which is acting."""
    model = stack()
    tokens, first = steps()
    whole, _, after, _ = model(model.initial(3), tokens, first)
    carry, outs = model.initial(3), []
    for t in range(0, 70, size):
        out, _, carry, _ = model(carry, tokens[:, t : t + size], first[:, t : t + size])
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(carry, after, rtol=1e-4, atol=1e-5)


def test_a_reset_begins_anew_from_the_learned_state() -> None:
    model = stack()
    tokens, first = steps()
    whole = model(model.initial(3), tokens, first)[0]
    for row, t in ((0, 20), (0, 21), (0, 69), (1, 40)):
        begun = model(torch.full((1, model.hidden_width), 1e6), tokens[row : row + 1, t:], first[row : row + 1, t:])[0]
        part = whole[row : row + 1, t:]
        torch.testing.assert_close(begun, part, rtol=1e-4, atol=1e-5)
    assert (model(model.initial(3) + 1, tokens, first)[0][0] - whole[0]).abs().max() == 0  # first at step 0
    assert (model(model.initial(3) + 1, tokens, first)[0][1] - whole[1]).abs().max() > 1e-3


def test_starts_are_the_carries_after_the_last_steps() -> None:
    model = stack()
    tokens, first = steps()
    *_, each = model(model.initial(3), tokens, first)
    starts = model.starts(each, 5).unflatten(0, (3, 5))
    for t in range(5):
        after = model(model.initial(3), tokens[:, : 66 + t], first[:, : 66 + t])[2]
        torch.testing.assert_close(starts[:, t], after, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_parameter_and_the_carry() -> None:
    model = stack(out=5)
    tokens, first = steps()
    carry = model.initial(3).detach().requires_grad_()
    model(carry, tokens, first)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert carry.grad is not None
    assert not carry.grad[0].any() and carry.grad[1].any()  # row 0 begins with a reset
    zeros = S5Stack(12, 32, 1, learned=False)
    assert "blocks.0.s5.start" not in dict(zeros.named_parameters()) and not zeros.initial(2).any()


def test_rows_with_agents() -> None:
    model = stack()
    tokens, first = steps(rows=6)
    flat = model(model.initial(6), tokens, first)
    shaped = (tokens.unflatten(0, (2, 3)).transpose(1, 2), first.unflatten(0, (2, 3)).transpose(1, 2))
    folded = model(model.initial(2, 3), *shaped)
    for one, other in zip(flat[:2], folded[:2], strict=True):
        torch.testing.assert_close(other.transpose(1, 2).flatten(0, 1), one)
    together = model(model.initial(2, 3), shaped[0], first[:2])  # one `first` for all agents
    assert together[0].shape == folded[0].shape


def test_every_product_is_made_by_the_one_given() -> None:
    """Three for each block, and the output's; the weights are drawn alike, and the numbers are the same."""
    seen: list[tuple[int, ...]] = []

    def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        seen.append(tuple(weight.shape))
        out = (x.flatten(0, -2) @ weight.t()).unflatten(0, x.shape[:-1])
        return out if bias is None else out + bias

    theirs, mine = stack(out=20, product=product), stack(out=20)
    tokens, first = steps()
    found = theirs(theirs.initial(3), tokens, first)
    assert seen == [(64, 12), (12, 64), (24, 12)] * 2 + [(20, 12)]
    for one, other in zip(found[:3], mine(mine.initial(3), tokens, first)[:3], strict=True):
        torch.testing.assert_close(one, other)


# ---- precision, compilation, optimiser


def test_under_autocast_the_state_stays_in_full_precision() -> None:
    model = stack()
    tokens, first = steps(length=300)
    layer = model.blocks[0].s5
    wanted = layer(layer.initial(3), tokens, first)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(layer.initial(3), tokens.bfloat16(), first)
        model(model.initial(3), tokens, first)[0].sum().backward()
    same = layer(layer.initial(3), tokens.bfloat16().float(), first)
    assert got[0].dtype == got[1].dtype == torch.float32
    assert got[0].equal(same[0]) and (got[0] - wanted[0]).abs().max() < 0.1
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_it_compiles_whole() -> None:
    model = stack(out=5)
    tokens, first = steps()
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)
    results = []
    for one in (model, compiled):
        out, hidden, _, _ = one(one.initial(3), tokens, first)
        (out.square().sum() + hidden.square().sum()).backward()
        results.append([out, hidden, *(p.grad for p in one.parameters())])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_names_gather_what_r2i_clips_apart() -> None:
    model = stack()
    groups = by_name(model)
    assert list(groups) == ["lambda_re", "lambda_im", "B", "C", "D", "log_step"]
    assert groups["B"][0] is model.blocks[0].s5.B and groups["B"][1] is model.blocks[1].s5.B


def test_a_radius_above_one_is_seen_and_can_be_forbidden() -> None:
    for negative, stable in ((False, False), (True, True)):
        layer = S5(4, 16, negative=negative)
        assert layer.radius() < 1
        with torch.no_grad():
            layer.lambda_re += 1.0
        assert bool(layer.radius() < 1) is stable


def test_a_state_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="16"):
        S5(4, 24)


# ---- without complex numbers


@pytest.mark.parametrize("options", [{}, {"discretise": zoh, "negative": True, "learned": False}])
def test_real_pairs_give_the_numbers_of_the_complex_layer(options: dict[str, Any]) -> None:
    made = stack(**options).double().requires_grad_(False)
    real = copy.deepcopy(made)
    for block in real.blocks:
        block.s5 = block.s5.exportable()  # type: ignore[assignment, union-attr, operator]
    tokens, first = steps()
    out, hidden, carry, each = made(made.initial(3), tokens.double(), first)
    state, outs = real.initial(3), []
    for t in range(70):  # as a robot does
        one, _, state, _ = real(state, tokens.double()[:, t : t + 1], first[:, t : t + 1])
        outs.append(one)
    torch.testing.assert_close(torch.cat(outs, 1), out, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, carry, rtol=0, atol=1e-12)
    whole = real(real.initial(3), tokens.double(), first)
    torch.testing.assert_close(whole[1], hidden, rtol=0, atol=1e-12)
    torch.testing.assert_close(real.blocks[0].starts(whole[3][..., :64], 4), each[..., :64][:, -4:].flatten(0, 1))
    assert not any(value.is_complex() for value in real.state_dict().values())

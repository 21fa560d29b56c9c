"""The cache gives what recomputation gives, pieces give what the whole gives, and STORM's sizes are STORM's."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from wm_tssm import Cache, TooLong, TransformerStack, across_episodes, plain, within_episode
from wm_tssm.stack import Each

SIGHTS = [across_episodes, within_episode]
ROWS, LENGTH, WIDTH = 2, 9, 16


def stack(**parts):
    torch.manual_seed(0)
    sizes = {"layers": 2, "heads": 4, "hidden": 32, "positions": 32}
    return TransformerStack(WIDTH, **(sizes | parts)).double().eval()


def tokens(length=LENGTH, rows=ROWS, seed=1):
    return torch.randn(rows, length, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flags(length=LENGTH):
    first = torch.zeros(ROWS, length, dtype=torch.bool)
    first[:, 0] = first[0, 4] = True
    return first


def dreamt(model, cache, dream):
    """Outputs of a dream from a cache: (M, T, D)."""
    never = torch.zeros(len(dream), 1, dtype=torch.bool)
    outs = []
    for token in dream.split(1, 1):
        out, _, cache, _ = model(cache, token, never)
        outs.append(out)
    return torch.cat(outs, 1)


def cached_and_recomputed(model, last, steps=6):
    """The same dreams both ways, each (ROWS, last, steps, D): from a cache, and by plain lines from all before a token."""
    context, first = tokens(), flags()
    dream = tokens(steps, ROWS * last, seed=2)
    cache = model.starts(model(model.initial(ROWS), context, first)[3], last)
    rows = dream.unflatten(0, (ROWS, last))
    begun = range(LENGTH - last, LENGTH)  # -1 is the start before all tokens
    again = torch.stack(
        [plain.dream(model, context[:, : at + 1], first[:, : at + 1], rows[:, i]) for i, at in enumerate(begun)], 1
    )
    return dreamt(model, cache, dream).unflatten(0, (ROWS, last)), again


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("last", [1, 3, LENGTH, LENGTH + 1])
@pytest.mark.parametrize("grad", [False, True])
def test_cache_equals_recomputation(sight, last, grad):
    with torch.set_grad_enabled(grad):
        one, other = cached_and_recomputed(stack(sight=sight), last)
    assert (one - other).abs().max() < 1e-10


def test_a_cache_without_room_left_grows():
    model = stack(room=2)
    with torch.no_grad():
        one, other = cached_and_recomputed(model, 2)
    assert (one - other).abs().max() < 1e-10


class Unseen(Cache):
    """A planted bug: the newest token does not see itself."""

    def read(self, layer):
        keys, values = super().read(layer)
        return keys[:, :, :-1], values[:, :, :-1]

    def mask(self):
        mask = super().mask()
        return None if mask is None else mask[..., :-1]


class Stuck(Cache):
    """A planted bug: the position does not move on."""

    def advance(self):
        return replace(self, used=self.used + 1)


class OneEarly(TransformerStack):
    """A planted bug: each start sees one token too few, and stands one position too early."""

    def starts(self, each, last):
        shifted = [tuple(x.roll(1, 2) for x in pair) for pair in each.layers]
        return super().starts(Each(shifted, each.position - 1, each.visible), last)


def planted(kind):
    class Planted(TransformerStack):
        def starts(self, each, last):
            cache = super().starts(each, last)
            return kind(cache.memory, cache.used, cache.position, cache.visible)

    return Planted


@pytest.mark.parametrize("bug", [planted(Unseen), planted(Stuck), OneEarly])
@pytest.mark.parametrize("last", [1, 3])
def test_a_cache_off_by_one_is_caught(bug, last):
    torch.manual_seed(0)
    model = bug(WIDTH, layers=2, heads=4, hidden=32, positions=32).double().eval()
    with torch.no_grad():
        one, other = cached_and_recomputed(model, last)
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("grad", [False, True])
def test_two_dreams_from_one_cache_do_not_disturb_each_other(grad):
    model, never = stack(), torch.zeros(ROWS, 1, dtype=torch.bool)
    with torch.set_grad_enabled(grad):
        begin = model.starts(model(model.initial(ROWS), tokens(), flags())[3], 1)
        one, other, then = tokens(1, seed=3), tokens(1, seed=4), tokens(1, seed=5)
        first = model(begin, one, never)[2]
        model(begin, other, never)
        after = model(first, then, never)[0]
        alone = model.starts(model(model.initial(ROWS), tokens(), flags())[3], 1)
        expected = dreamt(model, alone, torch.cat([one, then], 1))[:, -1:]
    assert torch.equal(after, expected)


def test_gradient_of_a_dream_reaches_context_and_tokens():
    model = stack()
    context, dream = tokens().requires_grad_(), tokens(4, seed=2).requires_grad_()
    cache = model.starts(model(model.initial(ROWS), context, flags())[3], 1)
    one = torch.autograd.grad(dreamt(model, cache, dream).square().sum(), [context, dream])
    other = torch.autograd.grad(plain.dream(model, context, flags(), dream).square().sum(), [context, dream])
    for mine, theirs in zip(one, other, strict=True):
        assert mine.abs().sum() > 0
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_pieces_equal_the_whole_within_the_context(sight, size):
    model = stack(sight=sight, context=LENGTH)
    whole = model(model.initial(ROWS), tokens(), flags())[0]
    carry, outs = model.initial(ROWS), []
    for piece, first in zip(tokens().split(size, 1), flags().split(size, 1), strict=True):
        out, _, carry, _ = model(carry, piece, first)
        outs.append(out)
    assert (torch.cat(outs, 1) - whole).abs().max() < 1e-10


def test_beyond_the_context_an_output_is_made_from_the_last_tokens_counted_anew():
    model, long = stack(context=4), tokens(12)
    never = torch.zeros(ROWS, 12, dtype=torch.bool)
    carry = model.initial(ROWS)
    for t in range(12):
        out, _, carry, _ = model(carry, long[:, t : t + 1], never[:, :1])
        recent = long[:, max(0, t - 3) : t + 1]
        expected = model(model.initial(ROWS), recent, never[:, : recent.shape[1]])[0][:, -1:]
        assert (out - expected).abs().max() < 1e-10
        assert carry["tokens"].shape[1] == min(3, t + 1)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("layers", [1, 3])
def test_outputs_equal_the_plain_lines_forward_and_backward(sight, layers):
    model, x = stack(sight=sight, layers=layers), tokens().requires_grad_()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    pull, found = tokens(seed=3), []
    for out in (model(model.initial(ROWS), x, flags())[0], plain.stack(model, x, flags())):
        found.append([out, *torch.autograd.grad((out * pull).sum(), [x, *model.parameters()])])
    for fast, straight in zip(*found, strict=True):
        assert straight.abs().max() > 1e-6
        torch.testing.assert_close(fast, straight, rtol=0, atol=1e-10)


def test_a_reset_hides_what_preceded_it_only_within_episodes():
    other = tokens().clone()
    other[0, :4] *= -1
    for sight, hidden in ((within_episode, True), (across_episodes, False)):
        model = stack(sight=sight)
        one, two = (model(model.initial(ROWS), x, flags())[0] for x in (tokens(), other))
        assert bool((one - two)[0, 4:].abs().max() < 1e-12) is hidden
        assert (one - two)[0, :4].abs().max() > 1e-3


def test_a_later_token_changes_no_earlier_output():
    other = tokens().clone()
    other[:, 6:] *= -1
    for sight in SIGHTS:
        model = stack(sight=sight)
        one, two = (model(model.initial(ROWS), x, flags())[0] for x in (tokens(), other))
        assert torch.equal(one[:, :6], two[:, :6])
        assert (one - two)[:, 6:].abs().max() > 1e-3


def test_parameters_are_storms():
    """Positions, the norm on them, and two blocks of four square layers, an MLP with biases and two norms."""
    model = TransformerStack(512, layers=2, heads=8, hidden=1024)
    block = 4 * 512**2 + 2 * (2 * 512) + (512 * 1024 + 1024) + (1024 * 512 + 512)
    assert sum(p.numel() for p in model.parameters()) == 64 * 512 + 2 * 512 + 2 * block == 4_235_264


def test_dropout_acts_in_training_alone():
    model = stack(dropout=0.5)
    args = (tokens(), flags())
    assert torch.equal(model(model.initial(ROWS), *args)[0], model(model.initial(ROWS), *args)[0])
    model.train()
    assert not torch.equal(model(model.initial(ROWS), *args)[0], model(model.initial(ROWS), *args)[0])


def test_more_tokens_than_positions_are_refused():
    model = stack(positions=8)
    with pytest.raises(TooLong, match="only 8 positions"):
        model(model.initial(ROWS), tokens(), flags())
    cache = model.starts(model(model.initial(ROWS), tokens(8), flags(8))[3], 1)
    with pytest.raises(TooLong, match="give more positions"):
        dreamt(model, cache, tokens(1))
    with pytest.raises(ValueError, match="one token at a time"):
        model(cache, tokens(2), flags()[:, :2])
    with pytest.raises(ValueError, match="at most one for each of 8"):
        stack(positions=8, context=9)
    with pytest.raises(ValueError, match="split among 3"):
        stack(heads=3)


def test_linear_layers_of_another_make_compute_and_hold_the_same():
    class Counted(nn.Linear):
        calls = 0

        def forward(self, x):
            Counted.calls += 1
            return super().forward(x)

    stacks = []
    for linear in (nn.Linear, Counted):
        torch.manual_seed(0)
        stacks.append(TransformerStack(16, layers=2, heads=4, hidden=32, linear=linear).eval())
    one, other = stacks
    assert {name: value.shape for name, value in one.state_dict().items()} == {
        name: value.shape for name, value in other.state_dict().items()
    }
    tokens, first = torch.randn(2, 5, 16), torch.zeros(2, 5, dtype=torch.bool)
    assert torch.equal(one(one.initial(2), tokens, first)[0], other(other.initial(2), tokens, first)[0])
    assert Counted.calls == 2 * 6  # query, key, value, out and the two of the MLP in each block


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("context", [1, 5, 32])
def test_padded_windows_give_what_growing_ones_do_and_so_do_their_dreams(sight, context):
    model = stack(sight=sight, context=context)
    padded = model.exportable()
    window, first = tokens(14), flags(14)
    grown, fixed = model.initial(ROWS), padded.initial(ROWS)
    sizes = {name: value.shape for name, value in fixed.items()}
    with torch.no_grad():
        for t in range(14):
            now = slice(t, t + 1)
            out, _, grown, each = model(grown, window[:, now], first[:, now])
            same, _, fixed, held = padded(fixed, window[:, now], first[:, now])
            assert (out - same).abs().max() < 1e-12 and {name: value.shape for name, value in fixed.items()} == sizes
        dream, cache, held = tokens(6, seed=2)[:ROWS], model.starts(each, 1), padded.starts(held, 1)
        steps = min(6, model.left(cache))
        expected = dreamt(model, cache, dream[:, :steps])
        found = dreamt(padded, held, dream[:, :steps])
    assert steps >= 6 or context == 32
    assert (found - expected).abs().max() < 1e-12

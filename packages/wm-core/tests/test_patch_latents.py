"""Latents of patches: each part against a loop over places, what may not reach whom, and a world of sprites that they learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.kl import categorical_kl
from wm_core.patch_latents import PatchCell, PatchLogits, PatchPosterior, PatchPrior, SpriteDecoder, SpriteEncoder
from wm_core.rssm import RSSM
from wm_core.testing import check_dynamics

GRID, S, K, FEATURES, D, A, DEPTH = (3, 5), 15, 4, 6, 8, 3, 2
MAPPED: dict[str, Any] = {"grid": GRID, "classes": K, "features": FEATURES}


def cell() -> PatchCell:
    torch.manual_seed(0)
    made = PatchCell(D, action=A, hidden=8, blocks=4, **MAPPED).double()
    nn.init.normal_(made.carries)
    return made


def rssm() -> RSSM:
    torch.manual_seed(0)
    recurrent = PatchCell(D, action=A, hidden=8, blocks=4, **MAPPED)
    return RSSM(
        deter=recurrent.deter,
        stoch=(S, K),
        embed=S * DEPTH,
        action=A,
        hidden=8,
        cell=recurrent,
        prior=PatchPrior(D, units=8, hidden=8, layers=1, **MAPPED),
        posterior=PatchPosterior(S * DEPTH, places=S, classes=K, units=8),
        mode=True,
    )


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """RMS over the last axis, then SiLU."""
    return F.silu(x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.scale)  # type: ignore[operator]


def moved(change: Tensor) -> list[int]:
    """The places (S, ...) in which anything is not as it was."""
    return change.reshape(S, -1).abs().amax(-1).gt(1e-12).nonzero().flatten().tolist()


def around(place: int) -> list[int]:
    row, column = divmod(place, GRID[1])
    near = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return [i * GRID[1] + j for i, j in near if 0 <= i < GRID[0] and 0 <= j < GRID[1]]


def test_the_laws_of_a_dynamics_hold() -> None:
    check_dynamics(rssm(), embed={"obs": S * DEPTH}, action=A)


def test_the_latent_is_the_posteriors_mode_and_the_posterior_that_class_for_certain() -> None:
    model, embed = rssm(), {"obs": torch.randn(2, 7, S * DEPTH)}
    action, reset = torch.randn(2, 7, A), torch.zeros(2, 7, dtype=torch.bool)
    one, two = (model.observe(model.initial(2), embed, action, reset) for _ in range(2))
    assert torch.equal(one.latent.stoch, two.latent.stoch)  # nothing is drawn
    logits = model.posterior.drive(embed["obs"]).unflatten(-1, (S, K))
    certain = F.one_hot(logits.argmax(-1), K).float()
    assert torch.allclose(one.latent.stoch, certain, atol=1e-6)
    assert torch.allclose(one.post.exp(), 0.99 * certain + 0.01 / K, atol=1e-6)
    pull = torch.randn(2, 7, S, K)
    (one.latent.stoch * pull).sum().backward()
    straight = torch.autograd.grad((0.99 * logits.softmax(-1) * pull).sum(), model.posterior.layers[-1].bias)[0]
    assert torch.allclose(model.posterior.layers[-1].bias.grad, straight, atol=1e-5) and straight.abs().max() > 0.01


def test_the_map_is_what_stood_there_and_what_the_action_carries_there() -> None:
    made, stoch = cell(), torch.rand(2, S, K).double()
    action = torch.tensor([[0.5, -1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    found = made.moved(stoch.flatten(1), action).unflatten(1, (S, FEATURES))
    for n in range(2):
        stood = stoch[n] @ made.embed.weight.T + made.embed.bias
        for to in range(S):
            carried = sum(
                (action[n, i] * made.carries[i, to, at] * stood[at] for i in range(A) for at in range(S)),
                torch.zeros(FEATURES // 2).double(),
            )
            assert torch.allclose(found[n, to], torch.cat([stood[to], carried]), atol=1e-12)


def test_a_step_in_one_call_is_a_step_in_two_and_the_dense_part_is_the_grus() -> None:
    made, deter, stoch, action = cell(), torch.rand(2, D + S * FEATURES), torch.rand(2, S * K), torch.rand(2, A)
    deter, stoch, action = deter.double(), stoch.double(), action.double()
    one = made(deter, (deter, stoch), made.drive(action))
    assert torch.allclose(one, made.advance(deter, (deter, stoch), action), atol=1e-12)
    own = made.gru(deter[:, :D], (deter[:, :D], stoch), made.gru.drive(action))
    assert torch.equal(one[:, :D], own)
    deter[:, D:] += 1  # the old map is nobody's to read
    assert torch.equal(one, made(deter, (deter, stoch), made.drive(action)))


def test_what_follows_from_a_latent_teaches_the_state_and_not_the_latent() -> None:
    model, embed = rssm(), torch.randn(2, 4, S * DEPTH, requires_grad=True)
    action, reset = torch.randn(2, 4, A), torch.zeros(2, 4, dtype=torch.bool)
    trace = model.observe(model.initial(2), {"obs": embed}, action, reset)
    to_carries, to_seen = torch.autograd.grad(
        trace.prior.square().sum(), [model.cell.carries, embed], retain_graph=True, allow_unused=True
    )
    assert to_carries.abs().max() > 0 and (to_seen is None or not to_seen.any())
    assert torch.autograd.grad((trace.latent.stoch * torch.randn(S, K)).sum(), embed)[0].abs().max() > 0


def test_an_action_that_permutes_places_carries_a_sprite_as_it_is() -> None:
    made = cell()
    with torch.no_grad():
        made.carries.zero_()
        for to in range(S):
            made.carries[1, to, (to + 1) % S] = 1  # action 1: the view moves by a place
    stoch = F.one_hot(torch.arange(S) % K, K).double()[None]
    found = made.moved(stoch.flatten(1), torch.tensor([[0.0, 1.0, 0.0]]).double()).view(S, FEATURES)
    stood, carried = found.chunk(2, -1)
    assert torch.allclose(carried, stood.roll(-1, 0), atol=1e-12) and not torch.allclose(carried, stood)


def test_logits_are_a_loop_over_places() -> None:
    torch.manual_seed(1)
    made = PatchLogits(D, 3, places=S, classes=K, units=8).double()
    whole, own = torch.randn(D).double(), torch.randn(S, 3).double()
    found = made(whole[None], own[None]).view(S, K)
    for place in range(S):
        told = made.whole.weight[8 * place : 8 * place + 8] @ whole + made.whole.bias[8 * place : 8 * place + 8]
        hidden = normed(told + made.own(own[place]), made.norms[0])
        hidden = normed(made.hidden(hidden), made.norms[1])
        assert torch.allclose(found[place], made.out(hidden), atol=1e-12)


def test_a_places_latent_is_of_what_is_seen_there_alone_and_the_same_wherever_it_is_seen() -> None:
    torch.manual_seed(2)
    encoder, made = SpriteEncoder((12, 20, 3), depth=DEPTH), PatchPosterior(S * DEPTH, places=S, classes=K, units=8)

    def logits(image: Tensor) -> Tensor:
        deter = torch.randn(1, D + S * FEATURES)
        found: Tensor = made(deter, made.drive(encoder(image[None]))).view(S, K)
        return found

    image = torch.randint(256, (12, 20, 3), dtype=torch.uint8)
    was, sprite = logits(image), torch.randint(256, (4, 4, 3), dtype=torch.uint8)
    found = []
    for place in (0, 7, 14):
        row, column = divmod(place, GRID[1])
        seen = image.clone()
        seen[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = sprite
        now = logits(seen)
        assert moved(now - was) == [place]
        found.append(now[place])
    assert torch.allclose(found[0], found[1], atol=1e-6) and torch.allclose(found[0], found[2], atol=1e-6)


def test_the_prior_of_a_place_reads_the_nine_around_it_and_the_whole() -> None:
    torch.manual_seed(3)
    made, deter = (
        PatchPrior(D, units=8, hidden=8, layers=1, **MAPPED).double(),
        torch.randn(1, D + S * FEATURES).double(),
    )
    was = made(deter).view(S, K)
    for place in (0, 7, 13):
        mapped = deter.clone()
        mapped[0, D + place * FEATURES + 1] += 1
        assert moved(made(mapped).view(S, K) - was) == around(place)
    deter[0, 0] += 1
    assert moved(made(deter).view(S, K) - was) == list(range(S))


def test_a_mixer_is_told_the_whole_state_and_heard_by_every_place() -> None:
    class First(nn.Module):
        width = 1

        def forward(self, deter: Tensor) -> Tensor:
            return deter[..., -1:]

    torch.manual_seed(4)
    made = PatchPrior(D, units=8, hidden=8, layers=1, mixer=First(), **MAPPED).double()
    deter = torch.randn(2, 1, D + S * FEATURES).double()
    was = made(deter)
    deter[1, 0, -1] += 1
    assert moved((made(deter) - was)[1].view(S, K)) == list(range(S)) and torch.equal(made(deter)[0], was[0])


def test_what_makes_places_hear_is_given_their_widths_and_each_place_what_it_makes_for_it() -> None:
    made_of: list[tuple[int, int]] = []

    class Third(nn.Module):
        width = 1

        def __init__(self, places: int, tokens: int) -> None:
            super().__init__()
            made_of.append((places, tokens))

        def forward(self, places: Tensor, tokens: Tensor) -> Tensor:
            heard = torch.zeros(*places.shape[:-1], 1, dtype=places.dtype)
            heard[..., 3, 0] = tokens[..., 0] * places[..., 3, 0]
            return heard

    torch.manual_seed(4)
    made = PatchPrior(D, units=8, hidden=8, layers=1, hearing=Third, **MAPPED).double()
    assert made_of == [(FEATURES + 8, D)]
    nn.init.zeros_(made.logits.whole.weight)
    nn.init.zeros_(made.near.weight)  # what is left tells a place of itself and of what it hears
    deter = torch.randn(1, D + S * FEATURES).double()
    was = made(deter).view(S, K)
    deter[0, 0] += 1
    assert moved(made(deter).view(S, K) - was) == [3]


def test_a_latent_draws_its_patch_and_the_deter_is_not_asked() -> None:
    torch.manual_seed(5)
    made = SpriteDecoder((12, 20, 3), deter=D, stoch=S * K, depth=5, units=0).double()
    stoch, deter = torch.rand(1, S, K).double(), torch.zeros(1, D).double()

    def drawn(stoch: Tensor) -> Tensor:
        image = made(deter, stoch.flatten(1))[0]
        return image.reshape(3, 4, 5, 4, 3).movedim(1, 2).reshape(S, -1)

    was = drawn(stoch)
    assert torch.equal(made(deter, stoch.flatten(1)), made(deter + 1, stoch.flatten(1)))
    own = normed(made.inputs(stoch[0]), made.norm)
    patches = torch.einsum("sd,dcij->sijc", own, made.out.weight) + made.out.bias + 0.5
    assert torch.allclose(was, patches.reshape(S, -1), atol=1e-12)
    for place in (0, 7):
        other = stoch.clone()
        other[0, place] = torch.rand(K).double()
        assert moved(drawn(other) - was) == [place]


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="5 features of a place are no two halves"):
        PatchCell(8, GRID, classes=K, features=5, action=A, hidden=8, blocks=4)
    with pytest.raises(ValueError, match="embedding of 29 is not of 15 places alone"):
        PatchPosterior(29, places=15, classes=K, units=8)
    with pytest.raises(ValueError, match="4x4 do not tile 12x18"):
        SpriteEncoder((12, 18, 3), depth=2)
    with pytest.raises(ValueError, match="of 61 numbers are not as many for each of 15"):
        SpriteDecoder((12, 20, 3), deter=1, stoch=61, depth=2, units=0)


# a world of 4x4 places, sprites of 4x4 pixels: one runs to the right by a place where action 0 is done, and stays at action 1
SIDE, SPRITES = 4, 5


def episodes(rows: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Views (B, T, 16, 16, 3) and the actions (B, T, 2) that led to them."""
    random = torch.Generator().manual_seed(seed)
    colours = torch.randint(256, (SPRITES, 4, 4, 3), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)
    action = torch.randint(2, (rows, length), generator=random)
    action[:, 0] = 1
    column = (torch.randint(SIDE, (rows, 1), generator=random) + (action == 0).cumsum(1)) % SIDE
    row, kind = (torch.randint(n, (rows,), generator=random) for n in (SIDE, SPRITES - 1))
    places = torch.zeros(rows, length, SIDE, SIDE, dtype=torch.long)
    for b in range(rows):
        places[b, torch.arange(length), row[b], column[b]] = 1 + kind[b]
    image = colours[places].permute(0, 1, 2, 4, 3, 5, 6).reshape(rows, length, 4 * SIDE, 4 * SIDE, 3)
    return image, F.one_hot(action, 2).float()


def test_a_world_of_sprites_is_learned_with_what_moves_them() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"grid": (SIDE, SIDE), "classes": 32, "features": 8}
    encoder = SpriteEncoder((16, 16, 3), depth=32)
    recurrent = PatchCell(8, action=2, hidden=16, blocks=2, **sizes)
    model = RSSM(
        deter=recurrent.deter, stoch=(16, 32), embed=encoder.width, action=2, hidden=16, unimix=0.001, cell=recurrent,
        prior=PatchPrior(8, units=64, hidden=16, layers=1, **sizes),
        posterior=PatchPosterior(encoder.width, places=16, classes=32, units=64), mode=True,
    )  # fmt: skip
    decoder = SpriteDecoder((16, 16, 3), deter=recurrent.deter, stoch=16 * 32, depth=32, units=0)
    optimiser = torch.optim.Adam([p for net in (encoder, model, decoder) for p in net.parameters()], lr=3e-3)
    for update in range(300):
        image, action = episodes(16, 6, update)
        trace = model.observe(model.initial(16), {"obs": encoder(image)}, action, torch.zeros(16, 6, dtype=torch.bool))
        drawn = decoder(trace.latent.deter, trace.latent.read("stoch"))
        error = (drawn - image / 255).square().flatten(2).sum(-1).mean()
        kl = categorical_kl(trace.post.detach(), trace.prior)
        optimiser.zero_grad()
        (error + kl.mean()).backward()
        optimiser.step()

    image, action = episodes(64, 6, 10_000)
    ahead = range(3, 6)

    @torch.no_grad()
    def dreamed(done: Tensor) -> list[float]:
        """Errors of views dreamed under other actions than those that were recorded, or the same."""
        seen = {"obs": encoder(image[:, :3])}
        trace = model.observe(model.initial(64), seen, action[:, :3], torch.zeros(64, 3, dtype=torch.bool))
        at, found = model.starts(trace, 1)[0], []
        for t in ahead:
            at, latent = model.imagine(at, done[:, t])
            found.append(float(error_of(decoder(latent.deter, latent.read("stoch")), t)))
        return found

    def error_of(said: Tensor, t: int) -> Tensor:
        return (said - image[:, t] / 255).square().flatten(1).sum(-1).mean()

    copied = [float(error_of(image[:, 2] / 255, t)) for t in ahead]
    for own, borrowed, last in zip(dreamed(action), dreamed(1 - action), copied, strict=True):
        assert own < 0.5 * borrowed and own < 0.5 * last, (own, borrowed, last)

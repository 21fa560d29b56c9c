"""A latent for each patch of an image instead of latents of the whole: what an `RSSM` and its world are then made of.

Where a world is drawn from small sprites on a grid, what stands in one place is one of few, wherever it lies, and an action
moves the whole view alike. Latents of the whole image learn both anew for every place, the small and rare last or never;
here all places share their weights. To everybody else the latents are what they always were, S of K classes, S = R * C.

They go with `RSSM(mode=True)`. Where latents are drawn, the decoder learns early that the many which show the ground say
nothing, and is blind to the rare one that shows something else, so that no gradient ever tells them apart.

The deterministic state has two parts, side by side: D numbers of a BlockGRU, which remembers, and a map of F features of each
place, which does not: half of them say what stood there one step before, half what the action carries there.

Sizes: N rows, A action, D dense, R x C places (S of them), F features, K classes, U units, E embed, d depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from wm_core.blocks import MLP, BlockGRU, linear, truncated_normal_
from wm_core.images import ChannelNorm
from wm_core.norm import RMSNorm, norm_silu
from wm_core.patches import PATCH, cells, drawing, reading
from wm_core.precision import wide

Grid = tuple[int, int]


class Mixer(Protocol):
    """What tells a prior more than the dense part: any module of this call, an `AgentTransformer` for one."""

    width: int

    def __call__(self, deter: Tensor) -> Tensor:
        """deter (..., D + S*F) -> (..., width)."""


class Hearing(Protocol):
    """What tells each place more than the whole does: any module of this call, a `PlacesAsk` for one. I is as wide as the
    dense part and what the mixer tells."""

    width: int

    def __call__(self, places: Tensor, tokens: Tensor) -> Tensor:
        """places (..., S, J), tokens (..., I) -> (..., S, width)."""


class PatchCell(nn.Module):
    """The recurrent model of an `RSSM` whose latents are those of patches: a `Cell`, deter' = [dense', map'].

    dense' is a BlockGRU's over [dense, z, a]. map' = [e, carried] with e = Linear(z) of each place and carried = (sum of
    a_i W_i) e, where W_i, (S, S) for each entry i of the action, says from which place to which it carries; W begins as the
    identity. A step or a turn of who sees is a permutation of places, which W_i can hold for all that may stand there.

    No gradient goes back into z: codes are learned for what they draw. With such gradients, and a representation loss, the
    error of what was drawn leapt tenfold now and then, as codes changed their meaning.

    Args:
        dense: D.
        grid: (R, C).
        classes: K.
        features: F, even.
        action: A.
        hidden, blocks: of the BlockGRU.

    Raises:
        ValueError: F is odd, or `blocks` do not divide D.

    >>> cell = PatchCell(16, (2, 3), classes=5, features=4, action=2, hidden=8, blocks=4)
    >>> deter, stoch, action = torch.zeros(7, cell.deter), torch.zeros(7, 6 * 5), torch.zeros(7, 2)
    >>> cell(deter, (deter, stoch), cell.drive(action)).shape
    torch.Size([7, 40])
    """

    def __init__(
        self, dense: int, grid: Grid, *, classes: int, features: int, action: int, hidden: int, blocks: int = 8
    ) -> None:
        super().__init__()
        if features % 2:
            raise ValueError(f"{features} features of a place are no two halves: give an even number")
        places = math.prod(grid)
        self.dense, self.apart, self.deter = dense, (places, classes), dense + places * features
        self.gru = BlockGRU(deter=dense, state=(dense, places * classes), action=action, hidden=hidden, blocks=blocks)
        self.embed = linear(classes, features // 2)
        self.carries = nn.Parameter(torch.eye(places).repeat(action, 1, 1))

    def drive(self, action: Tensor) -> Tensor:
        """What the action (..., A) adds to the GRU, and itself: (..., D + A)."""
        return torch.cat([self.gru.drive(action), action], -1)

    def forward(self, deter: Tensor, state: Sequence[Tensor], driven: Tensor) -> Tensor:
        dense, stoch = deter[:, : self.dense], state[1].detach()
        new = self.gru(dense, (dense, stoch), driven[:, : self.dense])
        return torch.cat([new, self.moved(stoch, driven[:, self.dense :])], -1)

    def advance(self, deter: Tensor, state: Sequence[Tensor], action: Tensor) -> Tensor:
        dense, stoch = deter[:, : self.dense], state[1].detach()
        new = self.gru.advance(dense, (dense, stoch), action)
        return torch.cat([new, self.moved(stoch, action)], -1)

    def moved(self, stoch: Tensor, action: Tensor) -> Tensor:
        """Flat stoch (N, S*K), action (N, A) -> the map (N, S*F)."""
        stood = self.embed(stoch.unflatten(-1, self.apart))
        carries = (action.to(stood.dtype) @ self.carries.flatten(1).to(stood.dtype)).unflatten(
            1, self.carries.shape[1:]
        )
        return torch.cat([stood, torch.bmm(carries, stood)], -1).flatten(1)


class PatchLogits(nn.Module):
    """What is the whole's (..., I) and what is each place's (..., S, J) -> logits (..., S*K), by two layers of U units that
    all places share, but for what each is told of the whole.

    >>> PatchLogits(16, 3, places=6, classes=5, units=4)(torch.zeros(7, 16), torch.zeros(7, 6, 3)).shape
    torch.Size([7, 30])
    """

    def __init__(self, whole: int, own: int, *, places: int, classes: int, units: int) -> None:
        super().__init__()
        self.apart = (places, units)
        self.whole, self.own, self.hidden = linear(whole, places * units), linear(own, units), linear(units, units)
        self.norms = nn.ModuleList([RMSNorm(units) for _ in range(2)])
        self.out = linear(units, classes)

    def forward(self, whole: Tensor, own: Tensor) -> Tensor:
        x = norm_silu(self.whole(whole).unflatten(-1, self.apart) + self.own(own), self.norms[0])  # type: ignore[arg-type]
        logits: Tensor = self.out(norm_silu(self.hidden(x), self.norms[1]))  # type: ignore[arg-type]
        return logits.flatten(-2)


class PatchPosterior(nn.Module):
    """embed -> logits (..., S*K), in the place of a `Posterior`: of each place by what is seen there alone, [linear, norm,
    SiLU], linear, all places by the same weights.

    The deter is not asked: a sprite's code is the same wherever and whenever it is seen. So all of it is computed for all
    steps at once.

    Args:
        embed: E, S*d features as a `SpriteEncoder` gives them.
        places: S.
        classes: K.
        units: U.

    Raises:
        ValueError: the embedding has not as many features for each place.

    >>> posterior = PatchPosterior(6 * 2, places=6, classes=5, units=8)
    >>> posterior(torch.zeros(7, 40), posterior.drive(torch.zeros(7, 12))).shape
    torch.Size([7, 30])
    """

    def __init__(self, embed: int, *, places: int, classes: int, units: int) -> None:
        super().__init__()
        if embed % places:
            raise ValueError(f"an embedding of {embed} is not of {places} places alone")
        self.apart = (places, embed // places)
        self.layers = nn.Sequential(MLP(embed // places, units, 1), linear(units, classes))

    def drive(self, embed: Tensor) -> Tensor:
        """The logits (..., S*K) of an embedding (..., E)."""
        logits: Tensor = self.layers(embed.unflatten(-1, self.apart))
        return logits.flatten(-2)

    def forward(self, deter: Tensor, driven: Tensor) -> Tensor:
        return driven


class PatchPrior(nn.Module):
    """deter (..., D + S*F) -> logits (..., S*K): [conv 3x3, norm, SiLU] of the map, so that what moves by a place is seen
    where it comes from, and `PatchLogits` of it, of each place's map and of an MLP of the whole.

    Args:
        dense, grid, classes, features: D, (R, C), K and F, as the `PatchCell`'s.
        units: U.
        hidden, layers: of the MLP.
        mixer: what the whole is told besides the dense part.
        hearing: makes from J and I what each place is told besides.

    >>> PatchPrior(16, (2, 3), classes=5, features=4, units=8, hidden=8, layers=1)(torch.zeros(7, 16 + 6 * 4)).shape
    torch.Size([7, 30])
    """

    def __init__(
        self,
        dense: int,
        grid: Grid,
        *,
        classes: int,
        features: int,
        units: int,
        hidden: int,
        layers: int,
        mixer: Mixer | None = None,
        hearing: Callable[[int, int], Hearing] | None = None,
    ) -> None:
        super().__init__()
        self.dense, self.grid, self.mixer = dense, grid, mixer
        own, token = features + units, dense + (0 if mixer is None else mixer.width)
        self.mlp = MLP(token, hidden, layers)
        self.near = nn.Conv2d(features, units, 3, padding=1, bias=False)
        truncated_normal_(self.near.weight, 9 * features)
        self.norm = ChannelNorm(units)
        self.hearing = None if hearing is None else hearing(own, token)
        own += 0 if self.hearing is None else self.hearing.width
        self.logits = PatchLogits(self.mlp.width, own, places=math.prod(grid), classes=classes, units=units)

    def forward(self, deter: Tensor) -> Tensor:
        dense, places = deter[..., : self.dense], deter[..., self.dense :].unflatten(-1, (math.prod(self.grid), -1))
        token = dense if self.mixer is None else torch.cat([self.mixer(deter), dense], -1)
        own = torch.cat([places, self.around(places)], -1)
        if self.hearing is not None:
            own = torch.cat([own, self.hearing(own, token)], -1)
        found: Tensor = self.logits(self.mlp(token), own)
        return found

    def around(self, places: Tensor) -> Tensor:
        """What lies in the nine places around each: (..., S, F) -> (..., S, U)."""
        maps = places.reshape(-1, *self.grid, places.shape[-1]).permute(0, 3, 1, 2)
        near: Tensor = self.norm(self.near(maps)).permute(0, 2, 3, 1)
        return near.reshape(*places.shape[:-1], -1)


class SpriteEncoder(nn.Module):
    """uint8 images (..., H, W, C) -> features (..., S*d): [conv PxP of stride P, norm, SiLU], each patch by itself.

    The input is x / 255 - 0.5. Called like the encoders of `wm_core.images`. Raises ValueError where patches do not tile the
    image.

    >>> SpriteEncoder((44, 32, 3), depth=2)(torch.zeros(2, 5, 44, 32, 3, dtype=torch.uint8)).shape
    torch.Size([2, 5, 176])
    """

    multiple = PATCH

    def __init__(self, shape: tuple[int, int, int], *, depth: int, patch: int = PATCH) -> None:
        super().__init__()
        rows, columns = cells(shape, patch)
        self.patches = reading(shape[2], depth, patch)
        self.norm = ChannelNorm(depth)
        self.width = rows * columns * depth

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(0, -4).permute(0, 3, 1, 2).div(255).sub_(0.5)
        return self.norm(self.patches(x)).permute(0, 2, 3, 1).reshape(*image.shape[:-3], -1)


class SpriteDecoder(nn.Module):
    """Flat stoch (..., S*K) -> images (..., H, W, C), the encoder's mirror: each place's latent to d features by one linear
    layer, norm, SiLU, and each patch drawn by itself; + 0.5, no sigmoid.

    The deter is not asked, so that what is drawn has to be in the latents. Called like the decoders of `wm_core.images`;
    `deter`, `units` and `blocks` say nothing here. Raises ValueError where patches do not tile the image, and where its
    places do not divide the stoch.

    >>> decoder = SpriteDecoder((44, 32, 3), deter=16, stoch=11 * 8 * 5, depth=2, units=0)
    >>> decoder(torch.zeros(2, 5, 16), torch.zeros(2, 5, 440)).shape
    torch.Size([2, 5, 44, 32, 3])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        deter: int,
        stoch: int,
        depth: int,
        units: int,
        blocks: int = 8,
        patch: int = PATCH,
    ) -> None:
        super().__init__()
        self.grid = cells(shape, patch)
        classes, over = divmod(stoch, math.prod(self.grid))
        if over:
            raise ValueError(f"latents of {stoch} numbers are not as many for each of {math.prod(self.grid)} patches")
        self.inputs, self.norm = linear(classes, depth), ChannelNorm(depth)
        self.out = drawing(depth, shape[2], patch)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        x = self.inputs(stoch.reshape(-1, *self.grid, self.inputs.in_features)).permute(0, 3, 1, 2)
        x = wide(self.out(self.norm(x))) + 0.5
        return x.permute(0, 2, 3, 1).reshape(*deter.shape[:-1], *x.shape[-2:], x.shape[1])

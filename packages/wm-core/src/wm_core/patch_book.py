"""Which of the patches that were met is it? Latents of patches whose classes are not learned but collected.

A world of small sprites has few patches: K of them hold all that there is, and a class of its own for each is exact, while
nets that learn classes and drawings together give sprites that are nearly alike, one that looks left and one that looks
right, one class for long. It is the nearest-neighbour tokenizer of Dedieu et al. (2025, "Improving Transformer World Models
for Data-Efficient RL"), but that in each update the patch farthest from all is taken up, so that a book that is too small
holds what differs most. A patch never leaves its place in the book, so that a class means ever the same.

`BookEncoder`, `BookPosterior` and `BookDecoder` stand where `wm_core.patch_latents` has its SpriteEncoder, PatchPosterior and
SpriteDecoder, with one book, and go with `RSSM(mode=True)`.

Sizes: H W C image, P side of a patch, S patches of F = P * P * C numbers each, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wm_core.patches import PATCH, cells
from wm_core.precision import wide
from wm_core.ranks import ranks

NOVEL = 0.005
NOBODY = 1e9  # the distance to a patch that is not there yet


class PatchBook(nn.Module):
    """Up to K patches, and how far others are from each: uint8 images (..., H, W, C) -> squared distances (..., S, K).

    In training, where gradients are taken, each call first takes up the patch that is farthest from all in the book, if its
    distance is above `novel` and there is room. Distances are sums over a patch's numbers, x / 255. Nothing leaves the
    device, and all ranks take up the same one.

    Args:
        shape: (H, W, C).
        classes: K.
        patch: P.
        novel: what a patch has to differ by.

    Raises ValueError where patches do not tile the image.

    >>> book = PatchBook((8, 8, 3), classes=5)
    >>> book(torch.zeros(2, 8, 8, 3, dtype=torch.uint8)).shape, int(book.count)
    (torch.Size([2, 4, 5]), 1)
    """

    patches: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, int, int], *, classes: int, patch: int = PATCH, novel: float = NOVEL) -> None:
        super().__init__()
        self.shape, self.grid, self.patch, self.novel = shape, cells(shape, patch), patch, novel
        self.places, self.classes = math.prod(self.grid), classes
        self.register_buffer("patches", torch.zeros(classes, patch * patch * shape[2]))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, image: Tensor) -> Tensor:
        apart = self.apart(image)
        found = self.distances(apart)
        if self.training and torch.is_grad_enabled():
            self.take(apart, found)
            found = self.distances(apart)
        return found

    @torch.no_grad()
    def distances(self, apart: Tensor) -> Tensor:
        """(..., F) -> (..., K) float32. Computed as float64, since sprites may differ by less than TF32 tells apart."""
        x, known = apart.double(), self.patches.double()
        square = x.square().sum(-1, keepdim=True) - 2 * x @ known.t() + known.square().sum(-1)
        missing = torch.arange(self.classes, device=known.device) >= self.count
        return square.float().masked_fill(missing, NOBODY)

    @torch.no_grad()
    def take(self, apart: Tensor, distances: Tensor) -> None:
        """Take up the farthest of patches (..., F) whose distances (..., K) are these, of all ranks'."""
        least, at = distances.amin(-1).flatten().max(0)
        best = torch.cat([least[None], apart.flatten(0, -2).index_select(0, at[None])[0]])
        offers = ranks().gather(best[None])  # (ranks, 1 + F)
        least, patch = offers[offers[:, 0].argmax()].split([1, len(best) - 1])
        new = (least > self.novel) & (torch.arange(self.classes, device=least.device) == self.count)
        self.patches.copy_(torch.where(new[:, None], patch, self.patches))
        self.count.add_(new.sum())

    def apart(self, image: Tensor) -> Tensor:
        """Images (..., H, W, C) uint8 -> their patches (..., S, F), x / 255."""
        (rows, columns), side = self.grid, self.patch
        lead, channels = image.shape[:-3], image.shape[-1]
        cut = image.reshape(-1, rows, side, columns, side, channels).transpose(2, 3)
        return cut.reshape(*lead, self.places, -1).float().div_(255)

    def together(self, apart: Tensor) -> Tensor:
        """The inverse: (..., S, F) -> (..., H, W, C), x / 255."""
        (rows, columns), side = self.grid, self.patch
        joined = apart.reshape(-1, rows, columns, side, side, self.shape[2]).transpose(2, 3)
        return joined.reshape(*apart.shape[:-2], *self.shape)


class BookEncoder(nn.Module):
    """uint8 images (..., H, W, C) -> logits of every patch's class (..., S*K), how near each is. Called like the encoders of
    `wm_core.images`; `depth` says nothing here. Raises ValueError for a book of another shape.

    >>> book = PatchBook((44, 32, 3), classes=5)
    >>> BookEncoder((44, 32, 3), depth=0, book=book)(torch.zeros(2, 7, 44, 32, 3, dtype=torch.uint8)).shape
    torch.Size([2, 7, 440])
    """

    multiple = PATCH

    def __init__(self, shape: tuple[int, int, int], *, depth: int, book: PatchBook) -> None:
        super().__init__()
        if shape != book.shape:
            raise ValueError(f"a book of patches of {book.shape} does not read {shape}")
        self.book, self.width = book, book.places * book.classes

    def forward(self, image: Tensor) -> Tensor:
        return self.book(image).neg().flatten(-2)


class BookPosterior(nn.Module):
    """The embedding of a `BookEncoder` as logits: a `Recognition` that asks nothing else."""

    def drive(self, embed: Tensor) -> Tensor:
        return embed

    def forward(self, deter: Tensor, driven: Tensor) -> Tensor:
        return driven


class BookDecoder(nn.Module):
    """Flat stoch (..., S*K) -> images (..., H, W, C): of each place the patch of its class, of several their mean. Called like
    the decoders of `wm_core.images`; all but the latents says nothing here. Raises ValueError where there are not K for each
    place.

    >>> book = PatchBook((44, 32, 3), classes=5)
    >>> BookDecoder((44, 32, 3), deter=1, stoch=440, depth=0, units=0, book=book)(torch.zeros(7, 1), torch.zeros(7, 440)).shape
    torch.Size([7, 44, 32, 3])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        deter: int,
        stoch: int,
        depth: int,
        units: int,
        book: PatchBook,
        blocks: int = 8,
    ) -> None:
        super().__init__()
        if (shape, stoch) != (book.shape, book.places * book.classes):
            raise ValueError(
                f"a book of {book.classes} patches of {book.shape} draws neither {shape} nor latents of {stoch} numbers"
            )
        self.book = book

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        flat = wide(stoch).unflatten(-1, (self.book.places, self.book.classes))
        with torch.autocast(flat.device.type, enabled=False):
            return self.book.together(flat @ self.book.patches.to(flat.dtype))

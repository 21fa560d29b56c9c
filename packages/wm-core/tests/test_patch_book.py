"""A book of patches: what it takes up, against a loop, when, and that it is exact where there is room for all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from wm_core.patch_book import NOBODY, BookDecoder, BookEncoder, BookPosterior, PatchBook
from wm_core.ranks import Alone, learning_with

SHAPE, S, F, SPRITES = (12, 20, 3), 15, 48, 7


def images(count: int, seed: int = 0, sprites: int = SPRITES) -> Tensor:
    """Views of sprites that stand anywhere, (count, 12, 20, 3)."""
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randint(256, (sprites, 4, 4, 3), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)
    where = torch.randint(sprites, (count, 3, 5), generator=random)
    return drawn[where].transpose(2, 3).reshape(count, *SHAPE)


def patches(image: Tensor) -> Tensor:
    """(n, H, W, C) -> (n, S, F), x / 255, by loops."""
    cut = [
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten(1)
        for row in range(3)
        for column in range(5)
    ]
    return torch.stack(cut, 1) / 255


def test_distances_are_sums_of_squares_over_a_patch_and_nobody_is_near_to_what_is_not_there() -> None:
    book, seen = PatchBook(SHAPE, classes=4), images(6)
    for _ in range(3):
        book(seen)
    found = book.eval()(seen)
    expected = (patches(seen)[:, :, None] - book.patches[:3]).square().sum(-1)
    assert torch.allclose(found[..., :3], expected, atol=1e-5) and (found[..., 3] == NOBODY).all()


def test_each_call_takes_up_the_farthest() -> None:
    book, seen = PatchBook(SHAPE, classes=5), images(4)
    flat, taken = patches(seen).flatten(0, 1), [patches(seen)[0, 0]]
    for count in range(1, 6):
        book(seen)
        assert book.count == count and torch.allclose(book.patches[:count], torch.stack(taken), atol=1e-6)
        assert not book.patches[count:].any()
        taken.append(flat[(flat[:, None] - torch.stack(taken)).square().sum(-1).amin(-1).argmax()])
    was = book.patches.clone()
    book(images(4, seed=1))  # it is full
    assert book.count == 5 and torch.equal(book.patches, was)


def test_what_is_as_good_as_known_is_not_taken_up() -> None:
    book, seen = PatchBook(SHAPE, classes=9, novel=0.5), torch.zeros(1, *SHAPE, dtype=torch.uint8)
    book(seen)
    seen[0, 0, 0, 0] = 180  # (180 / 255)^2 is 0.498
    book(seen)
    assert book.count == 1
    seen[0, 0, 0, 0] = 181
    book(seen)
    assert book.count == 2


def test_nothing_is_taken_up_where_nobody_learns() -> None:
    book = PatchBook(SHAPE, classes=9)
    with torch.no_grad():
        book(images(2))
    book.eval()(images(2))
    assert book.count == 0
    book.train()(images(2))
    assert book.count == 1


def test_where_there_is_room_for_all_a_view_is_drawn_as_it_is_and_classes_stay_what_they_were() -> None:
    book = PatchBook(SHAPE, classes=SPRITES + 2)
    encoder, decoder = BookEncoder(SHAPE, depth=0, book=book), sized(book)
    for seed in range(SPRITES):
        encoder(images(8, seed))
    seen = images(20, 99)
    logits = encoder(seen)
    first = logits.unflatten(-1, (S, -1)).argmax(-1)
    drawn = decoder(torch.zeros(20, 1), one_hot(logits))
    assert book.count == SPRITES and torch.equal((drawn * 255).round().to(torch.uint8), seen)
    encoder(images(1, sprites=SPRITES + 1))
    assert torch.equal(encoder(seen).unflatten(-1, (S, -1)).argmax(-1), first)
    posterior = BookPosterior()
    assert posterior(torch.zeros(20, 3), posterior.drive(logits)) is logits


def test_several_classes_are_drawn_as_their_mean() -> None:
    book = PatchBook(SHAPE, classes=3)
    for seed in range(3):
        book(images(8, seed))
    half = torch.zeros(1, S, 3)
    half[..., :2] = 0.5
    drawn = patches(255 * sized(book)(torch.zeros(1, 1), half.flatten(1)))
    assert torch.allclose(drawn, book.patches[:2].mean(0).expand(1, S, F), atol=1e-6)


def test_a_book_is_saved_and_read() -> None:
    book, other = PatchBook(SHAPE, classes=4), PatchBook(SHAPE, classes=4)
    for seed in range(3):
        book(images(8, seed))
    other.load_state_dict(book.state_dict())
    assert other.count == 3 and torch.equal(other.eval()(images(5, 7)), book.eval()(images(5, 7)))


def test_sprites_that_differ_by_little_are_told_apart_also_in_half_precision() -> None:
    seen = torch.full((1, *SHAPE), 200, dtype=torch.uint8)
    seen[0, :4, :4] = 190  # 0.074 of 29.5
    book = PatchBook(SHAPE, classes=4)
    with torch.autocast("cpu", torch.bfloat16):
        book(seen)
        found = book(seen).argmin(-1)
        drawn = sized(book)(torch.zeros(1, 1), torch.eye(4)[found].flatten(1))
    assert (
        book.count == 2 and found.unique().tolist() == [0, 1] and torch.allclose(drawn * 255, seen.float(), atol=1e-3)
    )


def test_all_ranks_take_up_the_same_patch() -> None:
    class Two(Alone):
        """The other rank offers what is kept here."""

        count = 2

        def gather(self, value: Tensor) -> Tensor:
            return torch.cat([value, self.theirs])

    two = Two()
    near = torch.cat([torch.tensor([0.2]), torch.full((F,), 0.25)])[None]
    far = torch.cat([torch.tensor([9e9]), torch.full((F,), 0.75)])[None]
    for two.theirs, theirs in ((near, False), (far, True)):
        book = PatchBook(SHAPE, classes=2)
        with learning_with(two):
            book(images(1))
        own = patches(images(1))[0, 0]
        assert torch.allclose(book.patches[0], torch.full((F,), 0.75) if theirs else own)


def test_what_does_not_go_together_is_refused() -> None:
    book = PatchBook(SHAPE, classes=4)
    with pytest.raises(ValueError, match="4x4 do not tile 12x18"):
        PatchBook((12, 18, 3), classes=4)
    with pytest.raises(ValueError, match=r"of \(12, 20, 3\) does not read \(8, 8, 3\)"):
        BookEncoder((8, 8, 3), depth=1, book=book)
    with pytest.raises(ValueError, match=r"draws neither .* nor latents of 61 numbers"):
        BookDecoder(SHAPE, deter=1, stoch=61, depth=1, units=0, book=book)


def sized(book: PatchBook) -> Any:
    return BookDecoder(SHAPE, deter=1, stoch=S * book.classes, depth=0, units=0, book=book)


def one_hot(logits: Tensor) -> Tensor:
    apart = logits.unflatten(-1, (S, -1))
    return torch.eye(apart.shape[-1])[apart.argmax(-1)].flatten(-2)

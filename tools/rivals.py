"""Dreams of held-out rows of several agents -> their errors in pixels, beside what knows nothing of actions, or wrong ones.

Sizes: S starts, E episodes, N agents, A steps ahead, T steps of a row (context + A), H W C picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from recording import Recording
from torch import Tensor
from wm_core.types import Batch

Predict = Callable[[Batch, int], Tensor]  # a batch of E teams, and which dream -> views (E, T, N, H, W, C) in [0, 1]
Pair = tuple[Tensor, Tensor]
RIVALS = ("copy", "mean", "own", "others")


@dataclasses.dataclass(frozen=True)
class Errors:
    """Mean squared errors of views: `of["model"]` and those of its rivals, each (S, E, N, A); `shows` (S, E, N, A) bool says
    which of the views show another agent."""

    of: dict[str, Tensor]
    shows: Tensor

    def mean(self, name: str, shown: bool = False) -> Tensor:
        """Of each agent and step (N, A), over all rows or over the views that show another agent."""
        weight = self._weight(shown)
        return (self.of[name] * weight).sum((0, 1)) / weight.sum((0, 1))

    def margin(self, rival: str, shown: bool = False) -> tuple[Tensor, Tensor]:
        """By how much the model's error is below a rival's, (N, A), and the standard error of that: the jackknife over
        episodes, since rows of one episode are alike.

        >>> errors = Errors({"model": torch.zeros(1, 2, 1, 1), "copy": torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)}, None)
        >>> [value.item() for value in errors.margin("copy")]
        [2.0, 1.0]
        """
        weight = self._weight(shown).sum(0)
        gain = ((self.of[rival] - self.of["model"]) * self._weight(shown)).sum(0)
        without = (gain.sum(0) - gain) / (weight.sum(0) - weight)  # (E, N, A): all but one episode
        count = len(gain)
        spread = (without - without.mean(0)).square().sum(0) * (count - 1) / count
        return gain.sum(0) / weight.sum(0), spread.sqrt()

    def _weight(self, shown: bool) -> Tensor:
        return self.shows.to(self.of["model"].dtype) if shown else torch.ones_like(self.of["model"])


def compared(
    predict: Predict,
    held_out: Recording,
    mean: Tensor,
    shows: NDArray[np.bool_],
    *,
    context: int,
    ahead: int,
    starts: Sequence[int],
    dreams: int = 1,
) -> tuple[Errors, Errors]:
    """The errors of a model and its rivals: those of a dream, in the mean of so many, and those of the mean of the dreams.
    mean: (N, H, W, C) in [0, 1]. shows: (E, R, N) of the recording, which of its views show another agent. A row of one
    episode borrows the actions of the next one's, so that they are of the same time in another game. Raises ValueError where
    a row spans two episodes."""
    length, found, shown = context + ahead, [], []
    for start in starts:
        batch = held_out.rows(range(held_out.streams), [start] * held_out.streams, length)
        if batch.steps["first"][:, 1:].any():
            raise ValueError(
                f"the rows from record {start} on span two episodes: record longer ones, or start elsewhere"
            )
        found.append(_compared(predict, batch, mean, context, dreams))
        shown.append(torch.from_numpy(shows[:, start + context : start + length]).transpose(1, 2))
    of, both = torch.stack(shown), range(2)
    one, several = ({name: torch.stack([each[name][i] for each in found]) for name in found[0]} for i in both)
    return Errors(one, of), Errors(several, of)


def _compared(predict: Predict, batch: Batch, mean: Tensor, context: int, dreams: int) -> dict[str, Pair]:
    """Of one batch: (E, N, A) of a dream, and as many of the mean of all."""
    true = batch.steps["image"].float() / 255

    def error(said: Tensor) -> Tensor:
        return (said - true)[:, context:].square().flatten(3).mean(-1).transpose(1, 2)

    def dreamed(batch: Batch) -> Pair:
        said = [predict(batch, dream) for dream in range(dreams)]
        return torch.stack([error(one) for one in said]).mean(0), error(torch.stack(said).mean(0))

    copy, mean = error(true[:, context - 1 : context]), error(mean[None, None])
    errors = {"model": dreamed(batch), "copy": (copy, copy), "mean": (mean, mean)}
    action = batch.steps["action"]
    borrowed = action.clone()
    borrowed[:, context:] = action[:, context:].roll(1, 0)
    for name in ("own", "others"):
        each = []
        for agent in range(action.shape[2]):
            theirs = torch.arange(action.shape[2]) == agent
            theirs = theirs if name == "own" else ~theirs
            steps = batch.steps | {"action": torch.where(theirs[:, None], borrowed, action)}
            each.append([one[:, agent] for one in dreamed(dataclasses.replace(batch, steps=steps))])
        one, several = (torch.stack(part, 1) for part in zip(*each, strict=True))
        errors[name] = one, several
    return errors


def mean_views(recording: Recording, every: int = 10) -> Tensor:
    """The mean view of each agent over the recorded episodes, (N, H, W, C) in [0, 1], of every tenth record."""
    seen = recording.arrays["image"][:, ::every]
    return torch.from_numpy(seen.mean((0, 1), dtype="float64") / 255).float()


def own_colours(images: NDArray[np.uint8], share: float = 0.9) -> list[NDArray[np.int32]]:
    """The colours by which each agent is known, as numbers 0xRRGGBB: those in `share` of its own views (F, N, H, W, 3), and of
    nobody else's. Every player of Melting Pot sees itself at the same place of its view."""
    codes = _codes(images)
    found = []
    for own in codes.swapaxes(0, 1):
        candidates = np.unique(own[: len(own) // 10 + 1])  # a colour in nine tenths of all views is in one of these
        found.append({int(c) for c in candidates if (own == c).any((1, 2)).mean() >= share})
    return [
        np.array(sorted(own.difference(*(other for other in found if other is not own))), np.int32) for own in found
    ]


def shows_another(images: NDArray[np.uint8], colours: Sequence[NDArray[np.int32]]) -> NDArray[np.bool_]:
    """Which views (..., N, H, W, 3) hold a colour of another agent: (..., N)."""
    codes = _codes(images)
    found = np.zeros(codes.shape[:-2], np.bool_)
    for agent in range(len(colours)):
        others = np.concatenate([own for at, own in enumerate(colours) if at != agent])
        found[..., agent] = np.isin(codes[..., agent, :, :], others).any((-1, -2))
    return found


def _codes(images: NDArray[np.uint8]) -> NDArray[np.int32]:
    wide = images.astype(np.int32)
    codes: NDArray[np.int32] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return codes

"""A moment of a run or a dream -> a page: what arrived, what the model expected, and a line of words.

Sizes: H W C image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wm_run import filmstrip
from wm_run.filmstrip import IMAGINED, INK, LINE, OBSERVED, PAPER, Pixels

if TYPE_CHECKING:
    from wm_run.stage import Moment

SIDE = 240  # pixels of a panel
Vector = NDArray[np.float32]


def panel(value: NDArray[Any] | None, most: float = 1.0) -> Pixels:
    """An observation as uint8 (SIDE, SIDE, 3) or larger: an image, the bars of a vector in units of `most`, or grey."""
    if value is None:
        return np.full((SIDE, SIDE, 3), filmstrip.GONE, np.uint8)
    if value.ndim == 3:
        return filmstrip.enlarged(filmstrip.rgb(value)[None, None, None], SIDE)[0, 0, 0]
    page = np.full((SIDE, SIDE, 3), PAPER, np.uint8)
    height = max(1, SIDE // max(1, len(value)))
    middle = SIDE // 2
    page[:, middle] = INK
    for i, one in enumerate(value[: SIDE // height]):
        length = round(float(np.clip(np.nan_to_num(one) / most, -1, 1)) * (middle - 2))
        left, right = min(middle, middle + length), max(middle, middle + length) + 1
        page[i * height + 1 : max(i * height + 2, (i + 1) * height - 1), left:right] = OBSERVED
    return page


class Canvas:
    """Moments -> pictures uint8 (h, w, 3) of one size."""

    def __init__(self) -> None:
        self.most = 1e-6  # the largest number of any vector so far
        self.size: tuple[int, ...] | None = None

    def draw(self, moment: Moment, hint: str = "") -> Pixels:
        """What is seen | what the model decodes, and the predictions in words under them."""
        predicted = moment.predicted
        for value in (moment.seen, predicted.shown):
            if value is not None and value.ndim == 1 and value.size:
                self.most = max(self.most, float(np.abs(np.nan_to_num(value)).max()))
        right = panel(predicted.shown, self.most)
        left = panel(moment.seen, self.most)
        if left.shape != right.shape:
            left = np.full_like(right, filmstrip.GONE)
        height, width = right.shape[:2]
        page = np.full((LINE + height + 5 * LINE, 2 * width + 3 * 4, 3), PAPER, np.uint8)
        page[: LINE - 1] = IMAGINED if moment.imagined else OBSERVED
        page[LINE : LINE + height, 4 : 4 + width] = left
        page[LINE : LINE + height, 8 + width : 8 + 2 * width] = right
        title = f"dream, step {moment.t}" if moment.imagined else f"real, step {moment.t}"
        words = [(4, 1, title, PAPER), (8 + width, 1, "dreamed" if moment.imagined else "as the model sees it", PAPER)]
        words += [
            (4, LINE + height + 3 + i * LINE, line, INK) for i, line in enumerate([*caption(moment), hint][:5]) if line
        ]
        return filmstrip.write(page, words)


def caption(moment: Moment) -> list[str]:
    """Predictions and choices in words."""
    predicted = moment.predicted
    expected = round(predicted.reward, 3) + 0.0  # no -0.000
    real = "" if moment.reward is None else f"  (arrived {moment.reward:+.3f})"
    end = "  END" if moment.over else ""
    return [
        f"reward predicted {expected:+.3f}{real}",
        f"value {predicted.value:.3f}   continue {predicted.cont:.3f}{end}",
        f"score {'dreamed ' if moment.imagined else ''}{round(moment.score, 2) + 0.0:.2f}",
        f"action {action_words(moment.action)}  by {moment.who}",
    ]


def action_words(action: Vector) -> str:
    """A one-hot as its index, anything else as numbers.

    >>> action_words(np.array([0, 0, 1], np.float32)), action_words(np.array([0.5, -1], np.float32))
    ('2', '+0.50 -1.00')
    """
    if len(action) > 1 and sorted(action.tolist())[-2:] == [0, 1] and action.min() == 0:
        return str(int(action.argmax()))
    return " ".join(f"{one:+.2f}" for one in action[:8]) + (" ..." if len(action) > 8 else "")

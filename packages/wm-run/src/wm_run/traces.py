"""Open-loop predictions of vectors as pictures: time to the right, features down, true, predicted and error under each other.

Sizes: B sequences, T steps, X features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_run.filmstrip import GAP, GONE, IMAGINED, INK, LINE, MARGIN, OBSERVED, PAPER, TITLES, Pixels, write

WIDE, TALL = 8, 160  # pixels of a step; about those of all features
FLOOR = 0.05  # of the largest feature: what hardly ever differs from zero is not blown up


def traces(
    true: NDArray[np.floating],
    predicted: NDArray[np.floating],
    valid: NDArray[np.bool_],
    context: int,
    names: list[str] | None = None,
) -> Pixels:
    """A picture uint8 (h, w, 3) of vectors (B, T, X), valid (B, T): three titled blocks for each sequence.

    Blue is below zero and red above, full where a feature is as large as it ever truly is; an error is black there. Grey
    where no prediction is asked; the black line stands between what was observed and what was imagined. names: of the
    sequences, beside them.

    >>> traces(np.ones((2, 6, 4)), np.zeros((2, 6, 4)), np.ones((2, 6), np.bool_), context=2).shape
    (1000, 124, 3)
    """
    most = np.abs(true).max((0, 1))
    most = np.maximum(most, max(FLOOR * float(most.max()), 1e-6))
    blocks = [coloured(true / most), coloured(predicted / most), greyed((true - predicted) / most)]
    tall = max(1, TALL // true.shape[2])
    rows, steps, height = true.shape[0], true.shape[1], true.shape[2] * tall
    part = 3 * (height + GAP) + 3 * GAP
    page = np.full((LINE + rows * part, MARGIN + steps * WIDE + 2 * GAP, 3), PAPER, np.uint8)
    page[: LINE - 1, MARGIN : MARGIN + context * WIDE] = OBSERVED
    page[: LINE - 1, MARGIN + context * WIDE : MARGIN + steps * WIDE] = IMAGINED
    words = [
        (MARGIN + 2, 1, "observed", PAPER),
        (MARGIN + context * WIDE + 2, 1, f"imagined +1 to +{steps - context}", PAPER),
    ]
    for b in range(rows):
        for i, (block, title) in enumerate(zip(blocks, TITLES, strict=True)):
            shown = np.where(valid[b, :, None, None] | (i == 0), block[b], np.uint8(GONE))  # (T, X, 3)
            y = LINE + b * part + i * (height + GAP)
            page[y : y + height, MARGIN : MARGIN + steps * WIDE] = shown.swapaxes(0, 1).repeat(tall, 0).repeat(WIDE, 1)
            words.append((4, y + height // 2 - 6, title, INK))
        if names:
            words.append((4, LINE + b * part, names[b], INK))
    seam = MARGIN + context * WIDE
    page[LINE:, seam - 1 : seam + 1] = INK
    return write(page, words)


def coloured(share: NDArray[np.floating]) -> Pixels:
    """Numbers in [-1, 1] -> blue, white, red.

    >>> coloured(np.array([-1.0, 0.0, 1.0])).tolist()
    [[0, 0, 255], [255, 255, 255], [255, 0, 0]]
    """
    left = 1 - np.clip(np.abs(share), 0, 1)
    red, blue = np.where(share > 0, 1, left), np.where(share < 0, 1, left)
    return (np.stack([red, left, blue], -1) * 255).round().astype(np.uint8)


def greyed(share: NDArray[np.floating]) -> Pixels:
    """Sizes in [0, 1] -> white to black."""
    level = (255 * (1 - np.clip(np.abs(share), 0, 1))).round().astype(np.uint8)
    return level[..., None].repeat(3, -1)

"""Open-loop predictions as pictures: true, predicted and error under each other, with the end of the context marked;
and dreams with what their decoder is sensitive to.

Sizes: B sequences, T steps, H W C image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

OBSERVED, IMAGINED, PAPER, INK, GONE = (40, 150, 70), (225, 120, 20), (250, 250, 250), (20, 20, 20), 200
TITLES = ("true", "predicted", "error")
MAPS = ("dream", "sensitivity", "for value", "true")
MARGIN, LINE, GAP = 72, 16, 2  # pixels: room for the titles, height of a line of text, between pictures
Pixels = NDArray[np.uint8]


def rgb(frames: NDArray[Any]) -> Pixels:
    """uint8 (..., H, W, 3) of frames (..., H, W, C), uint8 or float in [0, 1]; of a stack the last picture.

    >>> rgb(np.ones((2, 4, 4, 1), np.float32)).shape
    (2, 4, 4, 3)
    """
    if frames.dtype != np.uint8:
        frames = (np.clip(frames, 0, 1) * 255).round().astype(np.uint8)
    channels = frames.shape[-1]
    if channels % 3:
        return frames[..., -1:].repeat(3, -1)
    return frames[..., -3:]


def beside(pictures: Pixels) -> Pixels:
    """(H, W, 3) as it is; those of a team's N agents, (N, H, W, 3), as one (H, N*W, 3), the first on the left.

    >>> beside(np.zeros((4, 4, 3), np.uint8)).shape, beside(np.zeros((2, 4, 4, 3), np.uint8)).shape
    ((4, 4, 3), (4, 8, 3))
    """
    return pictures if pictures.ndim == 3 else np.concatenate(list(pictures), 1)


def panels(true: NDArray[Any], predicted: NDArray[Any], valid: NDArray[np.bool_]) -> Pixels:
    """True, predicted and absolute error as pictures: uint8 (3, B, T, H, W, 3). Grey where no prediction is asked."""
    difference = np.abs(true.astype(np.float32) - predicted.astype(np.float32)).max(-1, keepdims=True)
    pictures = np.stack([rgb(true), rgb(predicted), rgb(difference)])
    pictures[1:, ~valid] = GONE
    return pictures


def film(true: NDArray[Any], predicted: NDArray[Any], valid: NDArray[np.bool_], context: int) -> Pixels:
    """A video uint8 (T, h, w, 3): one column a sequence, one row a title, green while observed and orange after.

    true and predicted (B, T, H, W, C) float in [0, 1], valid (B, T). The bar below is the time, its tick the end of the
    context.
    """
    pictures = enlarged(panels(true, predicted, valid))
    _, rows, steps, height, width, _ = pictures.shape
    h, w = LINE + 3 * (height + GAP) + LINE, MARGIN + rows * (width + GAP)
    frames = []
    for t in range(steps):
        observed = t < context
        colour = OBSERVED if observed else IMAGINED
        page = np.full((h, w, 3), PAPER, np.uint8)
        page[: LINE - 1] = colour
        for i in range(3):
            for b in range(rows):
                y, x = LINE + i * (height + GAP), MARGIN + b * (width + GAP)
                page[y : y + height, x : x + width] = pictures[i, b, t]
        span = w - MARGIN - GAP
        page[-LINE + 4 : -4, MARGIN : MARGIN + max(1, span * (t + 1) // steps)] = colour
        tick = MARGIN + span * context // steps
        page[-LINE + 1 : -1, tick - 1 : tick + 1] = INK
        words = [(4, LINE + i * (height + GAP) + height // 2 - 6, title, INK) for i, title in enumerate(TITLES)]
        says = f"observed {t + 1}/{context}" if observed else f"imagined +{t + 1 - context}"
        frames.append(write(page, [*words, (4, 1, says, PAPER), (4, h - LINE + 1, "time", INK)]))
    return np.stack(frames)


def strip(true: NDArray[Any], predicted: NDArray[Any], valid: NDArray[np.bool_], context: int, rows: int = 3) -> Pixels:
    """A picture uint8 (h, w, 3): time to the right at up to 14 steps, three lines for each of `rows` sequences.

    The black line stands between what was observed and what was imagined.
    """
    steps = true.shape[1]
    shown = np.unique(np.concatenate([[0, context - 1], np.linspace(context, steps - 1, 12).round()]).astype(int))
    return sheet(panels(true[:rows], predicted[:rows], valid[:rows]), TITLES, context, shown[shown < steps])


def maps(
    true: NDArray[Any],
    predicted: NDArray[Any],
    plain: NDArray[Any],
    weighted: NDArray[Any],
    valid: NDArray[np.bool_],
    context: int,
) -> Pixels:
    """A picture uint8 (h, w, 3) of dreams (B, T, H, W, C): each above what its decoder is sensitive to, in all
    directions and in the value's, (B, T - context, H, W); below them what came. Only imagined steps are shown.
    """
    dream = rgb(predicted[:, context:])
    lines = [dream, heated(dream, plain), heated(dream, weighted), rgb(true[:, context:])]
    pictures = np.stack(lines)
    pictures[:, ~valid[:, context:]] = GONE
    steps = pictures.shape[2]
    return sheet(pictures, MAPS, 0, np.unique(np.linspace(0, steps - 1, min(steps, 12)).round().astype(int)))


def heated(pictures: Pixels, values: NDArray[Any]) -> Pixels:
    """Pictures (..., H, W, 3) half covered by maps (..., H, W): black, red, yellow, white at a map's 99th percentile.

    >>> heated(np.zeros((1, 2, 2, 3), np.uint8), np.array([[[0.0, 0.0], [0.0, 1.0]]])).max((0, 3)).tolist()
    [[0, 0], [0, 128]]
    """
    top = np.percentile(values, 99, (-2, -1), keepdims=True)
    level = np.clip(values / np.maximum(top, np.finfo(np.float32).tiny), 0, 1)[..., None]
    heat = np.clip(3 * level - np.arange(3), 0, 1)  # red rises first, then green, then blue
    return (pictures / 2 + heat * 127.5).round().astype(np.uint8)


def sheet(pictures: Pixels, titles: Sequence[str], context: int, shown: NDArray[np.int_]) -> Pixels:
    """A picture of pictures (L, B, T, H, W, 3): steps `shown` to the right, the L titled lines of each sequence below
    each other, a black line after the context."""
    pictures = enlarged(pictures, least=64)
    lines, rows, _, height, width, _ = pictures.shape
    block = lines * (height + GAP) + 3 * GAP
    page = np.full((LINE + rows * block, MARGIN + len(shown) * (width + GAP), 3), PAPER, np.uint8)
    words = []
    for column, t in enumerate(shown):
        x = MARGIN + column * (width + GAP)
        page[: LINE - 1, x : x + width] = OBSERVED if t < context else IMAGINED
        words.append((x + 2, 1, f"t={t + 1}" if t < context else f"+{t + 1 - context}", PAPER))
        for b in range(rows):
            for i in range(lines):
                y = LINE + b * block + i * (height + GAP)
                page[y : y + height, x : x + width] = pictures[i, b, t]
    seam = MARGIN + int((shown < context).sum()) * (width + GAP)
    page[:, seam - GAP : seam] = INK
    for b in range(rows):
        for i, title in enumerate(titles):
            words.append((4, LINE + b * block + i * (height + GAP) + height // 2 - 6, title, INK))
    return write(page, words)


def enlarged(pictures: Pixels, least: int = 96) -> Pixels:
    """Every pixel as a square, so that the shorter side has about `least` pixels."""
    scale = max(1, -(-least // min(pictures.shape[3:5])))
    return pictures.repeat(scale, 3).repeat(scale, 4)


def write(page: Pixels, words: list[tuple[int, int, str, tuple[int, int, int]]]) -> Pixels:
    """The page with text (x, y, text, colour)."""
    image, draw = _pillow(page)
    for x, y, text, colour in words:
        draw.text((x, y), text, fill=colour)
    return np.asarray(image)


def _pillow(page: Pixels) -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageDraw
    except ModuleNotFoundError as error:
        raise UserError("drawing needs the package pillow: install wm-run") from error
    image = Image.fromarray(page)
    return image, ImageDraw.Draw(image)


def save_png(path: Any, page: Pixels) -> None:
    """A PNG file."""
    _pillow(page)[0].save(path)

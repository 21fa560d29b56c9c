"""What came and what every run foresaw, side by side -> one moving picture that a page can hold.

Sizes: R rows, C context, H steps ahead, M runs, h w of a picture.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

from wm_run.filmstrip import GAP, GONE, IMAGINED, LINE, OBSERVED, PAPER, Pixels, enlarged, rgb, write

BEFORE = 4  # records of the context that are shown
LEAST, PAUSE = 72, 350  # pixels of a picture's shorter side, milliseconds of a frame


def frames(
    true: NDArray[np.float32], foreseen: Sequence[NDArray[np.float32]], valid: NDArray[np.bool_], titles: Sequence[str]
) -> list[Pixels]:
    """(h, w, 3) for each of the last records of the context and every step ahead: a line a row, in it what came and what each
    run foresaw, grey where its episode is over. true (R, C + H, ...), each of foreseen (R, H, ...), valid (R, H)."""
    ahead = valid.shape[1]
    context = true.shape[1] - ahead
    begin = max(0, context - BEFORE)
    seen = rgb(true[:, begin:])
    columns = [seen]
    for one in foreseen:
        column = seen.copy()  # the context was seen by all
        column[:, context - begin :] = rgb(one)
        column[:, context - begin :][~valid] = GONE
        columns.append(column)
    pictures = enlarged(np.stack(columns), LEAST)  # (1 + M, R, steps, h, w, 3)
    lines, rows, steps, height, width, _ = pictures.shape
    found = []
    for t in range(steps):
        page = np.full((2 * LINE + rows * (height + GAP), lines * (width + GAP), 3), PAPER, np.uint8)
        late = t - (context - begin)
        page[: LINE - 1] = IMAGINED if late >= 0 else OBSERVED
        for i in range(lines):
            for b in range(rows):
                y, x = 2 * LINE + b * (height + GAP), i * (width + GAP)
                page[y : y + height, x : x + width] = pictures[i, b, t]
        says = f"imagined +{late + 1}" if late >= 0 else f"observed {late}"
        words = [(i * (width + GAP) + 2, LINE + 1, title, (20, 20, 20)) for i, title in enumerate(titles)]
        found.append(write(page, [(2, 1, says, PAPER), *words]))
    return found


def figure(pictures: Sequence[Pixels], about: str) -> str:
    """HTML of a film as an animated WebP, in the page itself."""
    data = base64.b64encode(webp(pictures)).decode()
    alt = escape(about, quote=True)
    return f'<figure><img alt="{alt}" src="data:image/webp;base64,{data}"><figcaption>{escape(about)}</figcaption></figure>'


def webp(pictures: Sequence[Pixels]) -> bytes:
    """The film, over and over."""
    from PIL import Image, features

    if not features.check("webp"):
        raise UserError("films of a page need WebP, which this machine's pillow was built without: install its wheel")
    images = [Image.fromarray(one) for one in pictures]
    file = io.BytesIO()
    images[0].save(file, "WEBP", save_all=True, append_images=images[1:], duration=PAUSE, loop=0, quality=80)
    return file.getvalue()

"""How much of a decoder's sensitivity lies on what matters in catch: ball and paddle, not the blocks behind them.

    uv run -m dreamer dream LOGDIR --sensitivity --observed 2 --imagined 6
    python tools/catch_share.py LOGDIR...

For the newest LOGDIR/dream/sensitivity-<step>.npz of each run: the share of the mass of each map on the pixels that show
ball or paddle in the true frame, the mean over imagined frames; beside it the share of these pixels, which is what a
map without preference has, and the factor between the two.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BALL, PADDLE = (250, 215, 50), (70, 110, 240)
MAPS = ("plain", "weighted", "plain_of_stoch", "weighted_of_stoch")


def shares(kept: Mapping[str, Any]) -> dict[str, float]:
    """Of each map, and of the pixels ("pixels").

    >>> true = np.zeros((1, 2, 1, 4, 3), np.float32)
    >>> true[0, 1, 0, 3] = np.array(BALL) / 255
    >>> one = np.array([[[[1.0, 0, 0, 3]]]])
    >>> kept = {"true": true, "valid": np.ones((1, 2), bool), "context": 1} | dict.fromkeys(MAPS, one)
    >>> shares(kept)["weighted"], shares(kept)["pixels"]
    (0.75, 0.25)
    """
    context = int(kept["context"])
    frames, valid = np.round(kept["true"][:, context:] * 255), kept["valid"][:, context:]
    matters = ((frames == BALL).all(-1) | (frames == PADDLE).all(-1))[valid]

    def share(values: NDArray[Any]) -> float:
        mass = values.sum((1, 2))
        counted = (mass > 0) & matters.any((1, 2))
        return float(((values * matters).sum((1, 2))[counted] / mass[counted]).mean())

    found = {name: share(kept[name][valid]) for name in MAPS}
    return found | {"pixels": share(np.ones(matters.shape))}


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdirs", nargs="+", type=Path)
    print(f"{'run':<28}" + "".join(f"{name:>18}" for name in (*MAPS, "pixels")))
    for logdir in parser.parse_args().logdirs:
        steps = {path: path.stem.removeprefix("sensitivity-") for path in logdir.glob("dream/sensitivity-*.npz")}
        paths = sorted((path for path in steps if steps[path].isdecimal()), key=lambda path: int(steps[path]))
        if not paths:
            parser.error(f"there are no maps in {logdir}: run `dream {logdir} --sensitivity` first")
        found = shares(np.load(paths[-1]))
        cells = [f"{one:.3f} ({one / found['pixels']:.2f}x)" for one in found.values()]
        print(f"{logdir.name:<28}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()

"""Frames -> an mp4 file, and such a file -> a GIF for pages that play nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wm_run.errors import EXTRA, RunError


def write_video(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    """An mp4 (H.264) of frames (T, H, W, 3): enlarged by whole pixels to about 256, edges doubled to even sizes.

    Raises RunError for frames of another kind, or where imageio and av are not installed.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise RunError(f"a video is uint8 (T, H, W, 3), not {frames.dtype} {frames.shape}")
    try:
        import av  # noqa: F401 - imageio's plugin asks for it only while writing
        import imageio.v3 as imageio
    except ModuleNotFoundError as error:
        raise RunError(f"writing a video needs the package {error.name}: {EXTRA}") from error
    height, width = frames.shape[1:3]
    scale = max(1, min(-(-256 // min(height, width)), 2048 // max(height, width)))
    frames = frames.repeat(scale, 1).repeat(scale, 2)
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    draft = path.with_name(f".{path.name}.draft.mp4")
    rate = max(1, round(fps))
    imageio.imwrite(draft, frames, plugin="pyav", codec="libx264", fps=rate, out_pixel_format="yuv420p")
    draft.replace(path)


def gif(path: Path, most: int = 100) -> bytes:
    """The film of an mp4 file as a GIF of at most so many frames, spread over the whole of it, as long as the film."""
    import imageio.v3 as imageio

    frames, rate = imageio.imread(path, plugin="pyav"), float(imageio.immeta(path, plugin="pyav")["fps"])
    every = -(-len(frames) // most)
    return bytes(imageio.imwrite("<bytes>", frames[::every], extension=".gif", duration=1000 * every / rate, loop=0))

r"""Has lerobot write the data sets beside this file, in an environment of its own (no lerobot resolves beside our torch).

    uv venv l && uv pip install --python l/bin/python lerobot==0.4.4 && l/bin/python make.py v3.0
    uv venv l && uv pip install --python l/bin/python lerobot==0.3.3 'datasets==3.6.0' 'numpy<2.3' \
        && l/bin/python make.py v2.1

3 episodes of 5 to 7 frames at 10 fps, whose every number says where it is. The statistics of v3.0 (meta/stats.json) are left
out, which nobody reads here.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = {
    "observation.images.top": {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
}


def frame(episode: int, t: int, length: int) -> dict[str, Any]:
    """A bar of t + 1 eighths of the width, and numbers."""
    image = np.full((64, 64, 3), 40, np.uint8)
    image[:, : 8 * (t + 1)] = 200 if episode % 2 else 120
    return {
        "observation.images.top": image,
        "observation.state": np.array([episode, t], np.float32),
        "action": np.array([10 * episode + t, -t], np.float32),
        "next.reward": np.array([0.5 * t], np.float32),
        "next.done": np.array([t == length - 1]),
    }


def main(folder: Path) -> None:
    """Write it there."""
    module: Any = importlib.import_module("lerobot.datasets.lerobot_dataset")
    data = module.LeRobotDataset.create(
        repo_id="toy/toy", fps=10, features=FEATURES, root=folder, robot_type="toy", use_videos=True
    )
    named = "task" in inspect.signature(data.add_frame).parameters  # of 0.3
    for episode, length in enumerate((5, 7, 6)):
        for t in range(length):
            one = frame(episode, t, length)
            if named:
                data.add_frame(one, task="toy")
            else:
                data.add_frame({**one, "task": "toy"})
        data.save_episode()
    if hasattr(data, "finalize"):
        data.finalize()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

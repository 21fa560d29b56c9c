"""storm: the command line, and the app as data."""

import sys
from importlib.metadata import version
from pathlib import Path

from wm_core.run.cli import App
from wm_core.run.cli import main as run

from storm.config import Config

APP = App(
    name="storm",
    method="storm",
    version=version("wm-app-storm"),
    config=Config,
    folder=Path(__file__).parent,
    sizes={},
    build="storm.agent:build",
    environments="storm.environments:make",
    decode_action="env_adapters:decode_action",
    mistakes=("TaskError", "BlindCritic", "TooLong"),
)


def main() -> None:
    """The console script. A bare `--var` says True."""
    words = sys.argv[1:]
    told = [*words[1:], "--"]
    run(APP, [f"{w}=True" if w == "--var" and n.startswith("--") else w for w, n in zip(words, told, strict=False)])

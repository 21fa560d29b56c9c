"""po_dreamer: the command line, and the app as data."""

from importlib.metadata import version
from pathlib import Path

from wm_run.cli import App
from wm_run.cli import main as run

from po_dreamer.config import SIZES, Config

APP = App(
    name="po_dreamer",
    method="po_dreamer",
    version=version("wm-app-po-dreamer"),
    config=Config,
    folder=Path(__file__).parent,
    sizes=SIZES,
    build="po_dreamer.agent:build",
    environments="po_dreamer.environments:make",
    decode_action="env_adapters:decode_action",
    acting=("protocol", "unimix", "actor_unimix", "memory_window", "memory_count", "memory_sight"),
    remembers=True,
)


def main() -> None:
    """The console script."""
    run(APP)

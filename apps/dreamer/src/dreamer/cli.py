"""dreamer: the command line, and the app as data."""

from importlib.metadata import version
from pathlib import Path

from wm_core.sizes import SIZES
from wm_run.cli import App
from wm_run.cli import main as run

from dreamer.config import Config

APP = App(
    name="dreamer",
    method="dreamer",
    version=version("wm-app-dreamer"),
    config=Config,
    folder=Path(__file__).parent,
    sizes=SIZES,
    build="dreamer.agent:build",
    environments="dreamer.environments:make",
    decode_action="env_adapters:decode_action",
    acting=("protocol", "unimix", "actor_unimix"),
)


def main() -> None:
    """The console script."""
    run(APP)

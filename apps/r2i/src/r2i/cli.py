"""r2i: the command line, and the app as data."""

from importlib.metadata import version
from pathlib import Path

from wm_run.cli import App
from wm_run.cli import main as run

from r2i.config import SIZES, Config

APP = App(
    name="r2i",
    method="r2i",
    version=version("wm-app-r2i"),
    config=Config,
    folder=Path(__file__).parent,
    sizes=SIZES,
    build="r2i.agent:build",
    environments="r2i.environments:make",
    decode_action="env_adapters:decode_action",
    acting=("resize", "unimix", "actor_unimix"),
)


def main() -> None:
    """The console script."""
    run(APP)

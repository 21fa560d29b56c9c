"""storm: the command line, and the app as data."""

from importlib.metadata import version
from pathlib import Path

from wm_run.cli import App
from wm_run.cli import main as run

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
    fresh="storm.environments:fresh",
    decode_action="env_adapters:decode_action",
    acting=("protocol", "eval_episode_seed", "unimix", "acting_context", "act_on", "resets"),
    mistakes=("TaskError", "BlindCritic", "TooLong"),
)


def main() -> None:
    """The console script."""
    run(APP)

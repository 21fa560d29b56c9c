"""The app as its users call it, and one small run on pixels."""

from dreamer.cli import APP
from wm_run.testing.fixtures import asked_for_apart, command, finished, short_films

__all__ = ["asked_for_apart", "catch", "run", "short_films"]
run, catch = command(APP), finished(APP, "--train_ratio", 16)

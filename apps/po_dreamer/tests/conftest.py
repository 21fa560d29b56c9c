"""The app as its users call it, and two small runs: on the vectors of doors, and on the pixels of catch."""

from po_dreamer.cli import APP
from wm_run.testing.fixtures import command, finished, short_films

__all__ = ["catch", "doors", "run", "short_films"]
run, doors = command(APP), finished(APP)
catch = finished(APP, "--task", "toy:catch", "--train_ratio", 16, "--steps", 120)

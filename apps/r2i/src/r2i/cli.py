"""r2i: the command line, and the app as data."""

from wm_run.app import App

from r2i.config import SIZES, Config

APP = App.of(
    "r2i", Config, sizes=SIZES, task_options=("resize",), acting=("resize", "unimix", "actor_unimix", "dream_continue")
)
main, load, train = APP.main, APP.load, APP.train

"""dreamer: the command line, and the app as data."""

from wm_core.sizes import SIZES
from wm_run.app import App

from dreamer.config import Config

APP = App.of("dreamer", Config, sizes=SIZES, task_options=("protocol",), acting=("protocol", "unimix", "actor_unimix"))
main, load, train = APP.main, APP.load, APP.train

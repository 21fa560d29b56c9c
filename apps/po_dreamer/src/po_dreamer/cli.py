"""po_dreamer: the command line, and the app as data."""

from wm_run.app import App

from po_dreamer.config import SIZES, Config

APP = App.of(
    "po_dreamer",
    Config,
    sizes=SIZES,
    task_options=("protocol",),
    teams="too",
    remembers=True,
    acting=("protocol", "unimix", "actor_unimix", "memory_window", "memory_count", "memory_sight", "masks"),
)
main, load, train = APP.main, APP.load, APP.train

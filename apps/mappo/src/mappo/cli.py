"""mappo: the command line, and the app as data."""

from wm_run.app import App

from mappo.config import Config

APP = App.of(
    "mappo",
    Config,
    teams="only",
    task_options=("players", "share_reward"),
    paper="paper",
    recordings=False,
    acting=("players", "share_reward"),
)
main, load, train = APP.main, APP.load, APP.train

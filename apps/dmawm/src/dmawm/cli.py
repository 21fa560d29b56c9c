"""dmawm: the command line, and the app as data."""

from wm_run.app import App

from dmawm.config import Config

APP = App.of(
    "dmawm",
    Config,
    teams="only",
    task_options=("players", "share_reward"),
    paper="paper",
    acting=("unimix", "actor_unimix", "masks", "players", "share_reward"),
)
main, load, train = APP.main, APP.load, APP.train

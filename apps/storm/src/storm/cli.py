"""storm: the command line, and the app as data."""

from wm_run.app import App

from storm.config import Config

APP = App.of(
    "storm",
    Config,
    task_options=("protocol",),
    fresh="storm.environments:fresh",
    mistakes=("TaskError", "BlindCritic", "TooLong"),
    acting=("protocol", "eval_episode_seed", "unimix", "acting_context", "act_on", "resets"),
)
main, load, train = APP.main, APP.load, APP.train

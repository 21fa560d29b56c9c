"""One run: replay, the loop, checkpoints, the run folder, the command line, play and dreams.

A name is imported when it is asked for, so that an app's command line (`App`, `RunConfig`) needs no torch.

>>> from wm_run import RunConfig
>>> RunConfig(task="toy:catch", batch=8).batch
8
"""

from typing import TYPE_CHECKING

__all__ = [
    "App",
    "Environments",
    "Loaded",
    "Log",
    "Position",
    "Recording",
    "Replay",
    "ReplayError",
    "RunConfig",
    "RunError",
    "Tasks",
    "Writer",
    "as_env",
    "as_vector_env",
    "evaluate",
    "load",
    "now",
    "train",
]

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.chunks import ReplayError
    from wm_run.config import RunConfig, now
    from wm_run.dream_made import as_env, as_vector_env
    from wm_run.errors import RunError
    from wm_run.loading import Loaded, load
    from wm_run.loop import Environments, Log, Position, train
    from wm_run.recorder import Writer
    from wm_run.recording import Recording
    from wm_run.replay import Replay
    from wm_run.rollout import evaluate
    from wm_run.tasks import Tasks
else:  # hidden from type checkers, which would believe in any name
    _HOMES = {
        "chunks": {"ReplayError"},
        "app": {"App"},
        "config": {"RunConfig", "now"},
        "dream_made": {"as_env", "as_vector_env"},
        "errors": {"RunError"},
        "loading": {"Loaded", "load"},
        "loop": {"Environments", "Log", "Position", "train"},
        "recorder": {"Writer"},
        "recording": {"Recording"},
        "replay": {"Replay"},
        "rollout": {"evaluate"},
        "tasks": {"Tasks"},
    }

    def __getattr__(name):
        import importlib

        for home, names in _HOMES.items():
            if name in names:
                return getattr(importlib.import_module(f"{__name__}.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})

"""`popgym_<Env><Difficulty>`: POPGym's small partially observable environments."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import version
from typing import Any

import gymnasium

from env_adapters.errors import TaskError
from env_adapters.step import Environment

ENVIRONMENTS = (
    "Autoencode",
    "Battleship",
    "Concentration",
    "CountRecall",
    "HigherLower",
    "MineSweeper",
    "MultiarmedBandit",
    "NoisyPositionOnlyCartPole",
    "NoisyPositionOnlyPendulum",
    "PositionOnlyCartPole",
    "PositionOnlyPendulum",
    "RepeatFirst",
    "RepeatPrevious",
    "VelocityOnlyCartpole",
)
TASKS = [f"{name}{level}" for name in ENVIRONMENTS for level in ("Easy", "Medium", "Hard")]


class PopGym(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment at one difficulty, unchanged; its time-outs are truncations.

    An observation in two parts (Autoencode) has the entries "0" and "1"; MultiDiscrete actions (Battleship,
    MineSweeper) stay one component per axis. Which episodes end by time is the environment's to say: the cart poles,
    pendulums, bandits, Battleship, MineSweeper and Concentration truncate, games that end with their deck terminate.

    TaskError for another name, or without the package.

    >>> env = PopGym("RepeatPreviousEasy")
    >>> env.observation_space, env.protocol["name"]
    (Discrete(4), 'popgym')
    """

    env_adapters = True
    cheap = True

    def __init__(self, name: str) -> None:
        known = {one.lower(): one for one in TASKS}
        if name.lower() not in known:
            close = [known[one] for one in difflib.get_close_matches(name.lower(), list(known), 3, 0.5)]
            hint = f"close: {', '.join('popgym_' + one for one in close)}" if close else f"known: {', '.join(TASKS)}"
            raise TaskError(f"popgym has no environment {name!r}; {hint}")
        try:
            importlib.import_module("popgym")
        except ModuleNotFoundError as error:
            raise TaskError(f"popgym needs {error.name}; install `env-adapters[popgym]`") from error
        task = known[name.lower()]
        env: Environment = gymnasium.make(f"popgym-{task}-v0", disable_env_checker=True)
        super().__init__(env)
        self.repeat = 1
        self.protocol: dict[str, Any] = {
            "name": "popgym",
            "suite": "popgym",
            "task": task,
            "limit_is_terminal": False,
            "repeat": 1,
            "package": f"popgym {version('popgym')}",
        }

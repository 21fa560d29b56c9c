"""`smac:<map>` and `smacv2:<race>_<n>_vs_<m>`: battles of StarCraft II, in worker processes of their own.

The rules are SMACv2's own code, which runs SMAC's maps, too, from the user's checkout or installation.
"""

# N agents, A actions, d observation, S state

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from env_adapters import smac_maps
from env_adapters.errors import TaskError
from env_adapters.smac_game import VARIABLES, Game
from env_adapters.smac_installed import check
from env_adapters.team import TeamEnv

_SECONDS = 120  # for asking what a game would be like


class Smac(TeamEnv):
    """A battle of N agents; `make_vec("smac:3m", n)` and `make_vec("smacv2:protoss_5_vs_5", n)` make n of them.

    Observation: `vector` float32 (d,), what the agent sees of itself and of units in its sight. Action: Discrete(A): 0 nothing,
    for the dead alone; 1 stop; 2 to 5 move north, south, east, west; from 6 on attack enemy k (a medivac: heal ally k). Reward:
    the team's, the same for every agent: damage, 10 for a kill, 200 for the win, scaled. State: (S,), of all units and of the
    last actions. Signal and outcome: `won`. An episode is truncated at its limit; every other end is terminal.

    It lives in a process that began with PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python: workers are given it. In any other
    process it only says what it would be like, and `reset` is a TaskError. Everything it needs is looked for when it is made.

    An episode cannot be played again: the game goes on where the last one ended. It is not restorable, and not deterministic;
    what SMACv2 draws (teams, places) does follow from the reset's seed. Where StarCraft II crashes or hangs the episode is
    truncated, and another game begins.
    """

    metadata = {"render_modes": [], "restorable": False}  # noqa: RUF012 - gymnasium declares it so
    apart = VARIABLES
    repeat = 1
    noop = 0
    signals = outcomes = ("won",)

    def __init__(self, task: str, arguments: Mapping[str, Any], protocol: Mapping[str, Any]) -> None:
        """task: its name. arguments: of SMACv2's class. protocol: what is said of it beside what the game says."""
        check("32x32_flat" if "capability_config" in arguments else arguments["map_name"])
        self._task = task
        self._game = Game(arguments) if all(os.environ.get(name) == VARIABLES[name] for name in VARIABLES) else None
        facts = self._game.facts() if self._game else _asked(task, arguments)
        self.agents, self.state_size = facts["agents"], facts["state"]
        box = spaces.Box(-np.inf, np.inf, (facts["observation"],), np.float32)
        self.observation_space, self.action_space = spaces.Dict({"vector": box}), spaces.Discrete(facts["actions"])
        self.protocol: dict[str, Any] = {
            **protocol,
            "agents": facts["agents"],
            "enemies": facts["enemies"],
            "max_steps": facts["limit"],
            "difficulty": arguments["difficulty"],
            "score": "damage to health and shields, 10 for a kill, 200 for the win, divided by what an episode can hold and "
            "multiplied by 20",
            "reward_scale": "20 / (200 + 10 an enemy + health and shields of the enemies in an instance's first episode)",
            "won": "StarCraft II: no enemy is alive (of medivacs and others, only medivacs) and an ally is",
            "starcraft": f"build {facts['build']}" + ("" if facts["build"] == 75689 else ", not the 4.10 of published scores"),
            "package": facts["packages"],
            "code": facts["code"],
            "deterministic": False,
            "repeat": 1,
        }  # fmt: skip
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Another battle; the first one starts StarCraft II."""
        super().reset(seed=seed)
        if self._game is None:
            raise TaskError(
                f"{self._task} plays in a process of its own: use make_vec({self._task!r}, 1), or begin this process with "
                + " ".join(f"{name}={value}" for name, value in VARIABLES.items())
            )
        self._over = True
        self._game.reset(self.np_random)
        self._over = False
        return self._shown(self._game, False)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """8 loops of the game."""
        if self._game is None or self._over:
            raise ResetNeeded("the episode has ended; call reset")
        self._over = True  # also if the game is lost
        reward, terminal, late, won = self._game.step([int(one) for one in action])
        self._over = terminal or late
        shown, info = self._shown(self._game, won)
        return shown, np.full(self.agents or 0, reward), terminal, late, info

    def reseed(self, seed: int) -> None:
        """Of the game itself, where it has not started."""
        if self._game is not None:
            self._game.seed(seed)

    def close(self) -> None:
        """End StarCraft II."""
        if self._game is not None:
            self._game.close()

    def _shown(self, game: Game, won: bool) -> tuple[Any, dict[str, Any]]:
        info = {"action_mask": game.masks(), "alive": game.alive(), "state": game.state(), "won": won}
        return {"vector": game.observations()}, info


def smac(name: str, *, difficulty: int | str = 7, game_version: str | None = None) -> Smac:
    """A map of SMAC. difficulty: of StarCraft II's own player, 1 to 9 or "A". game_version: such as "4.10", None for the newest
    that is there.

    TaskError for another map or value, or where something is missing.
    """
    about = {"name": f"SMAC {name}", "suite": "smac", "task": name}
    played = {"difficulty": str(difficulty), "game_version": game_version}
    return Smac(f"smac:{name}", smac_maps.smac(name) | played, about)


def smacv2(
    name: str,
    *,
    difficulty: int | str = 7,
    game_version: str | None = None,
    conic_fov: bool = False,
    prob_obs_enemy: float = 1.0,
) -> Smac:
    """A scenario of SMACv2: a race and the numbers of units, whose types and places are drawn for every episode.

    difficulty, game_version: as of `smac`. conic_fov: agents see within a cone, and turn it by 12 more actions. prob_obs_enemy:
    that an agent other than the first sees an enemy (below 1: the "extended partial observability" of SMACv2's paper).
    """
    if not 0 <= prob_obs_enemy <= 1:
        raise TaskError(f"smacv2: prob_obs_enemy is {prob_obs_enemy}; it is a probability")
    seen = {"conic_fov": conic_fov, "prob_obs_enemy": float(prob_obs_enemy)}
    about = {"name": f"SMACv2 {name}", "suite": "smacv2", "task": name, **seen}
    played = {"difficulty": str(difficulty), "game_version": game_version}
    return Smac(f"smacv2:{name}", smac_maps.smacv2(name) | played | seen, about)


def _asked(task: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a game, which another process looks up. TaskError where there is none."""
    found = ("SMACV2_SOURCE", "SC2PATH", "HOME")
    return _answer(task, json.dumps(arguments, sort_keys=True), tuple(os.environ.get(name) for name in found))


@functools.cache
def _answer(task: str, arguments: str, _: tuple[str | None, ...]) -> dict[str, Any]:
    path = os.pathsep.join(one for one in sys.path if one)
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import sys, env_adapters.smac_game as game; game.main(sys.argv[1])", arguments],
            env=os.environ | VARIABLES | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TaskError(f"{task}: SMACv2's code did not load within {_SECONDS} s; try again") from error
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        last = " ".join(done.stderr.split())[-300:]
        raise TaskError(f"{task}: SMACv2's code does not run here (exit code {done.returncode}): {last}") from error
    if "error" in answer:
        raise TaskError(f"{task}: {answer['error']}" if not answer["error"].startswith("SMAC") else answer["error"])
    facts: dict[str, Any] = answer["facts"]
    return facts

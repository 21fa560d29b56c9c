"""One game of SMAC or SMACv2 in this process: the package's code, its traps stepped over.

Whoever imports this has PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python in the environment that the process began with:
s2clientprotocol's messages are older than protobuf's compiled parsers.
"""

# N agents, A actions, d observation, S state

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env_adapters.errors import TaskError
from env_adapters.faults import fault_of
from env_adapters.smac_installed import builds, code, starcraft

VARIABLES = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}  # of the process
_TRIES = 10  # of placing units, before the game counts as broken


class StarCraftLost(RuntimeError):
    """StarCraft II's process ended or broke its connection."""


class Game:
    """The environment of SMACv2's code. arguments: of its class, with a `capability_config` for SMACv2.

    StarCraft II starts with the first `reset`, and ends with `close` or with this process.
    TaskError where the package does not take the arguments.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        package = _package()
        arguments = json.loads(json.dumps(arguments))  # the package writes into its capability_config
        kind = package.StarCraftCapabilityEnvWrapper if "capability_config" in arguments else package.StarCraft2Env
        known = importlib.import_module("smacv2.env.starcraft2.starcraft2")
        if arguments["difficulty"] not in known.difficulties:
            names = ", ".join(known.difficulties)
            raise TaskError(f"SMAC has no difficulty {arguments['difficulty']!r}; it has {names}")
        env = kind(**arguments)
        self._env: Any = getattr(env, "env", env)  # without the wrapper, whose reset gives None after a second try
        self._draws: dict[str, Any] = getattr(env, "env_key_to_distribution_map", {})
        self._impossible: type[Exception] = known.CannotResetException
        self._drawn = "capability_config" in arguments
        if not self._drawn:
            self._number_types(self._env.get_unit_type_id)
        # The package would start another game by itself, call the episode terminal and the step worth nothing.
        self._env.full_restart = self._lost
        self._least = float(self._env.max_reward)  # before the enemies' health is added, with the first episode
        self._begun = False

    def facts(self) -> dict[str, Any]:
        """JSON-able: agents, enemies, actions, observation (d), state (S), limit; build, code, packages: versions."""
        info, env = self._env.get_env_info(), self._env
        keys = {"agents": "n_agents", "actions": "n_actions", "observation": "obs_shape", "state": "state_shape"}
        found: dict[str, Any] = {name: int(info[key]) for name, key in keys.items()}
        found |= {"limit": int(info["episode_limit"]), "enemies": int(env.n_enemies)}
        found["build"] = _build(env.game_version)
        found["code"] = _digest()
        packages = ("smacv2", "pysc2", "s2clientprotocol", "protobuf")
        found["packages"] = ", ".join(f"{name} {number}" for name in packages if (number := _version(name)))
        return found

    def seed(self, seed: int) -> None:
        """Seed of the game of StarCraft II that the first `reset` starts."""
        vars(self._env)["_seed"] = seed % 2**31

    def reset(self, source: np.random.Generator) -> None:
        """Begin an episode; what the package draws for it (teams, places) follows from `source`."""
        for distribution in self._draws.values():
            _reseed(distribution, source)
        for left in reversed(range(_TRIES)):
            drawn: dict[str, Any] = {}
            for distribution in self._draws.values():
                drawn |= distribution.generate()
            try:
                self._env.reset(drawn)
                break
            except self._impossible:  # some places have no room
                if not left:
                    raise
        if not self._begun:
            # The package adds up the enemies' health as often as it looks for them: here it counts once.
            enemies = self._env.enemies.values()
            self._env.max_reward = self._least + sum(one.health_max + one.shield_max for one in enemies)
        self._begun = True
        # 0 would start a second game, and count the enemies anew, if this episode were not played to its end
        vars(self._env)["_episode_count"] = max(1, vars(self._env)["_episode_count"])

    def step(self, actions: Sequence[int]) -> tuple[float, bool, bool, bool]:
        """The team's reward; whether the battle is over, whether the limit alone ended it, and whether it is won.

        StarCraftLost where the game is gone.
        """
        before = self._env.timeouts
        reward, over, info = self._env.step(actions)
        if over and not info:
            self._lost()
        late = bool(self._env.timeouts > before)
        return float(reward), bool(over) and not late, late, bool(info.get("battle_won", False))

    def observations(self) -> NDArray[np.float32]:
        """(N, d)."""
        if not self._drawn:
            # Who has seen whom, which SMAC does not ask: what is within sight is shown. SMACv2's code blanks all enemies before
            # one that nobody has seen, or that lies dead out of sight.
            self._env.obs_enemies[:] = 1
        return np.array(self._env.get_obs(), np.float32)

    def state(self) -> NDArray[np.float32]:
        """(S,)."""
        return np.array(self._env.get_state(), np.float32)

    def masks(self) -> NDArray[np.bool_]:
        """(N, A) what may be chosen."""
        return np.array(self._env.get_avail_actions(), np.bool_)

    def alive(self) -> NDArray[np.bool_]:
        """(N,)."""
        return np.array([self._env.get_unit_by_id(agent).health > 0 for agent in range(self._env.n_agents)])

    def close(self) -> None:
        """End StarCraft II."""
        self._env.close()
        vars(self._env)["_sc2_proc"] = None  # the package holds this environment for as long as the process lives

    def _number_types(self, numbered: Callable[[Any, bool], int]) -> None:
        """On SMAC's maps an ally's type counts from the first of its side's, as in SMAC's own code; SMACv2's code looks it up
        among the enemies' types: outside the observation's array (2s3z, 3s5z), or as another type (MMM, 1c3s5z, bane_vs_bane).
        """

        def number(unit: Any, ally: bool) -> int:
            return int(unit.unit_type - vars(self._env)["_min_unit_type"]) if ally else numbered(unit, ally)

        self._env.get_unit_type_id = number

    def _lost(self) -> None:
        raise StarCraftLost("StarCraft II is gone: its process ended, or broke the connection")


def _package() -> Any:
    """smacv2.env, from the checkout where there is one, with games that end with this process."""
    root = str(code().parents[2])
    if root not in sys.path:
        sys.path.insert(0, root)  # before an smacv2 that is installed, too: without its maps, or of another day
    try:
        package = importlib.import_module("smacv2.env")
        process = importlib.import_module("pysc2.lib.sc_process")
    except TypeError as error:
        if "Descriptors cannot" not in str(error):
            raise
        raise TaskError(
            "SMAC's messages cannot be read in this process, which has imported protobuf already; use make_vec, or begin the "
            "process with PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python"
        ) from error
    except ImportError as error:
        raise TaskError(f"SMACv2's code does not load from {root}: {error}") from error
    process.StarcraftProcess._launch = _launch  # noqa: SLF001 - meant to be replaced: "useful for subclasses"
    return package


# PR_SET_PDEATHSIG outlives exec: SIGKILL when the process that started this one is gone
_FOLLOW = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


def _launch(self: Any, run_config: Any, args: Sequence[str], **_: Any) -> Any:
    """Start StarCraft II so that Ctrl-C does not reach it, and so that it ends when this process does, however that ends."""
    follow = [sys.executable, "-I", "-S", "-c", _FOLLOW] if sys.platform == "linux" else []
    return subprocess.Popen([*follow, *args], cwd=run_config.cwd, env=run_config.env, start_new_session=True)


def _generators(thing: Any) -> Iterator[tuple[Any, str]]:
    """Whose generators an object of the package holds, and under which name; also those of what it is made of."""
    for name, value in sorted(vars(thing).items()):
        if isinstance(value, np.random.Generator):
            yield thing, name
        elif hasattr(value, "generate"):
            yield from _generators(value)


def _reseed(distribution: Any, source: np.random.Generator) -> None:
    """Its generators are made from nothing when it is, and cannot be seeded from outside: give it others."""
    for owner, name in _generators(distribution):
        setattr(owner, name, np.random.default_rng(int(source.integers(2**63))))


def _build(game_version: str | None) -> int:
    """Number of the build that the package would start. TaskError for a version that is not there."""
    have = builds(starcraft())
    if game_version is None:
        return have[-1]
    known = importlib.import_module("pysc2.run_configs.lib").VERSIONS
    name = game_version if game_version.count(".") > 1 else f"{game_version}.0"
    if name not in known or known[name].build_version not in have:
        versions = [one for one in known if known[one].build_version in have]
        raise TaskError(
            f"there is no StarCraft II {game_version} in {starcraft()}; there is {', '.join(versions) or 'none that pysc2 knows'}: "
            "leave game_version out for the newest"
        )
    return int(known[name].build_version)


def _digest() -> str:
    """Fingerprint of the code that decides what a score means."""
    state = hashlib.blake2b(digest_size=6)
    for name in ("starcraft2.py", "wrapper.py", "distributions.py", "maps/smac_maps.py"):
        state.update((code() / name).read_bytes())
    return state.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main(arguments: str) -> None:
    """Print the facts of a game, as JSON on the last line, or why there is none. No game is started for it."""
    answer: dict[str, Any]
    try:
        answer = {"facts": Game(json.loads(arguments)).facts()}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told in the process that asked
        answer = {"error": fault_of(error).reason}
    print("\n" + json.dumps(answer))

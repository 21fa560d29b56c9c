"""Commands as JSON -> a Melting Pot substrate -> answers as JSON, pictures as bytes. Run as a script by a Python of its own.

`python -I meltingpot_worker.py FD SETTINGS` speaks over the connection FD. SETTINGS: JSON of substrate, players (or null: as
many as it has), size (a picture's side, or null: half of the substrate's), dies (whether it ends with its parent's thread).

    it says    {"ready": {...}}                            once
    is told    {"seed": 3}                                 begin an episode
               {"actions": [0, 7, 1, 2]}                   one step of every player
    it says    {"reward": [...], "last": false}            and then the pictures, uint8 (N, side, side, 3), as bytes
               {"error": "...", "final": true}             instead of any of these; final: the same would happen again

`python -I meltingpot_worker.py` alone prints what is installed. Nothing but numpy and dm-meltingpot is imported: where this
runs, env_adapters is not installed.
"""

# N players, H W of a picture of theirs

from __future__ import annotations

import ctypes
import importlib
import json
import platform
import random
import signal
import sys
import types
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PR_SET_PDEATHSIG = 1
_DROPPED = ("WORLD.RGB", "COLLECTIVE_REWARD")  # of every player alike: the whole map, and everyone's reward; privileged


def means(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, C) -> (N, H/2, W/2, C): the exact mean of each 2x2, rounded to the nearest, halves up.

    >>> means(np.array([[[[0], [255]], [[1], [2]]]], np.uint8)).tolist()
    [[[[65]]]]
    """
    wide = pictures.astype(np.uint16)
    rows = wide[:, ::2] + wide[:, 1::2]
    return ((rows[:, :, ::2] + rows[:, :, 1::2] + 2) // 4).astype(np.uint8)


def roles_of(config: Any, players: int | None) -> list[str]:
    """The role of each player: the substrate's own for its own number; else all "default", or its own in turn."""
    own = list(config.default_player_roles)
    if players is None or players == len(own):
        return own
    return ["default"] * players if "default" in config.valid_roles else [own[i % len(own)] for i in range(players)]


def without_tensorflow() -> None:
    """Only Melting Pot's bots compute with TensorFlow; a module without content spares 54 s, and its 2 GB."""
    empty = types.ModuleType("tensorflow")
    empty.__getattr__ = lambda name: type(name, (), {})  # type: ignore[method-assign]  # what annotations name
    sys.modules["tensorflow"] = empty


class Game:
    """A substrate, and its players' pictures and rewards."""

    def __init__(self, substrate: str, players: int | None, size: int | None) -> None:
        """ValueError for what the package has not."""
        self._package = importlib.import_module("meltingpot.substrate")
        if substrate not in self._package.SUBSTRATES:
            raise ValueError(f"Melting Pot {version('dm-meltingpot')} has no substrate {substrate!r}")
        config = self._package.get_config(substrate)
        self._name, self.roles, self.actions = substrate, roles_of(config, players), int(config.action_spec.num_values)
        self.side = int(config.timestep_spec.observation["RGB"].shape[0])
        if size not in (None, self.side, self.side // 2):
            raise ValueError(
                f"size is {size}; {substrate} is seen in {self.side}x{self.side}, or half of that: {self.side // 2}"
            )
        self._half = size != self.side
        self._env: Any = None

    def facts(self) -> dict[str, Any]:
        """What the other end is told."""
        return {
            "actions": self.actions,
            "roles": self.roles,
            "size": self.side // 2 if self._half else self.side,
            "seen": self.side,
            "package": f"dm-meltingpot {version('dm-meltingpot')}, dmlab2d {version('dmlab2d')}",
            "python": platform.python_version(),
        }

    def reset(self, seed: int) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """A new episode. The package builds its engine anew for each, and takes a seed for it from `random` then alone."""
        self.close()
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the package draws from it
        try:
            self._env = self._package.build(self._name, roles=self.roles)
        except (AssertionError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{self._name} cannot be played by {len(self.roles)}: {type(error).__name__}: {reason}"
            ) from error
        return self._shown(self._env.reset())

    def step(self, actions: list[int]) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """One action of every player."""
        return self._shown(self._env.step(actions))

    def close(self) -> None:
        """Let go of the engine."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _shown(self, timestep: Any) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        pictures = np.stack([one["RGB"] for one in timestep.observation])
        reply = {"reward": [float(one) for one in timestep.reward], "last": bool(timestep.last())}
        return reply, means(pictures) if self._half else pictures


def serve(connection: Connection, settings: dict[str, Any]) -> None:
    """Answer until the other end is gone. What is raised is said, and is the end."""
    try:
        game = Game(settings["substrate"], settings["players"], settings["size"])
        connection.send_bytes(json.dumps({"ready": game.facts()}).encode())
        while True:
            command = json.loads(connection.recv_bytes())
            reply, pictures = game.reset(command["seed"]) if "seed" in command else game.step(command["actions"])
            connection.send_bytes(json.dumps(reply).encode())
            connection.send_bytes(pictures.tobytes())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the other end must hear of it
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        connection.send_bytes(json.dumps({"error": reason, "final": isinstance(error, ValueError)}).encode())


def main(arguments: list[str]) -> None:
    """See above."""
    without_tensorflow()
    if not arguments:
        count = len(importlib.import_module("meltingpot.substrate").SUBSTRATES)
        print(f"dm-meltingpot {version('dm-meltingpot')} with {count} substrates, Python {platform.python_version()}")
        return
    settings = json.loads(arguments[1])
    if settings["dies"] and sys.platform == "linux":  # also where it hangs, and does not see that its connection ended
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    serve(Connection(int(arguments[0])), settings)


if __name__ == "__main__":
    main(sys.argv[1:])

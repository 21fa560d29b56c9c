"""`meltingpot:<substrate>`: N players of one of Melting Pot's substrates, each seeing a picture of its own, in a worker process.

The worker runs in another Python (see `meltingpot_home`), and has one substrate; see `meltingpot_worker` for what is said.
"""

# N players

from __future__ import annotations

import difflib
import json
import os
import subprocess
import tempfile
import threading
from multiprocessing.connection import Pipe
from typing import Any, Literal, NoReturn, get_args

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters import meltingpot_home
from env_adapters.errors import Diverged, TaskError
from env_adapters.kept import LOST
from env_adapters.meltingpot_substrates import SUBSTRATES
from env_adapters.team import TeamEnv

Sharing = Literal["none", "mean", "sum"]
_START, _PATIENCE = 120.0, 45.0  # seconds until a worker that has not begun, or that does not answer, counts as hung
# Steps from which on a substrate ends its episodes by chance, or at its limit: time is up and nothing else. An end before
# them is the game's own, such as a vote. The package says termination in both cases.
_BY_CHANCE, _BY_CHANCE_IN = 1000, {"coins": 300}
_LOST = "Melting Pot does not repeat under a seed"


class MeltingPot(TeamEnv):
    """A substrate and its players.

    Observation: `image` uint8 (size, size, 3), what a player sees of the map around it: the exact means of 2x2 pixels, rounded
    to the nearest, halves up, or with `size` 88 (or 40, in some) the pixels themselves. The whole map and the sum of all
    rewards, which the package shows to every player, are left out. Action: Discrete, 0 does nothing; then forward, backward,
    two sidesteps, two turns, and what the substrate has beside (a beam that mines, zaps, cleans). Everything may be chosen at
    all times, and nobody leaves.

    An episode is truncated after `max_steps`, or where the substrate ends it by chance, from 1,000 steps on.

    Melting Pot does not repeat: one seed leads to one of several episodes, and a resumed run cuts the episode under way short.

    >>> from env_adapters.errors import TaskError
    >>> try:
    ...     MeltingPot("coop_mining", share_reward="all")
    ... except TaskError as error:
    ...     print(error)
    meltingpot: share_reward is 'all'; it is "none", "mean" or "sum"
    """

    metadata = {"render_modes": [], "restorable": False}  # noqa: RUF012  # gymnasium declares it so
    repeat = 1
    noop = 0
    sizes_kept = ("image",)

    def __init__(
        self,
        substrate: str,
        players: int | None = 4,
        share_reward: str = "none",
        max_steps: int = 1000,
        size: int | None = None,
    ) -> None:
        """substrate: its name, such as coop_mining. players: how many, None for as many as the substrate has by default.
        share_reward: each player is given its own reward, or the "mean" or the "sum" of all. max_steps: of an episode. size: of
        a picture, the substrate's own (mostly 88) or half of it (None).

        TaskError for other values, or where Melting Pot is not there.
        """
        if substrate not in SUBSTRATES:
            close = difflib.get_close_matches(substrate, SUBSTRATES, 3, 0.4)
            hint = f"close: {', '.join(close)}" if close else "`python -m env_adapters tasks` names them"
            raise TaskError(f"meltingpot has no substrate {substrate!r}; {hint}")
        if share_reward not in get_args(Sharing):
            raise TaskError(f'meltingpot: share_reward is {share_reward!r}; it is "none", "mean" or "sum"')
        if max_steps < 1 or (players is not None and players < 1):
            raise TaskError(f"meltingpot: players and max_steps are at least 1; got {players} and {max_steps}")
        self._name, self._share, self._limit = substrate, share_reward, max_steps
        self._by_chance = _BY_CHANCE_IN.get(substrate, _BY_CHANCE)
        self._time, self._over = 0, True
        self._worker = Worker({"substrate": substrate, "players": players, "size": size})
        facts = self._worker.facts
        self.agents, side = len(facts["roles"]), int(facts["size"])
        self.observation_space = spaces.Dict({"image": spaces.Box(0, 255, (side, side, 3), np.uint8)})
        self.action_space = spaces.Discrete(int(facts["actions"]))
        self.protocol: dict[str, Any] = {
            "name": f"Melting Pot {substrate}",
            "suite": "meltingpot",
            "task": substrate,
            "agents": self.agents,
            "roles": list(facts["roles"]),
            "max_steps": max_steps,
            "share_reward": share_reward,
            "score": "the players' own rewards, mean over the players"
            if share_reward != "sum"
            else "the sum of all players' rewards",
            "image": "every pixel" if side == facts["seen"] else "means of 2x2 pixels, rounded, halves up",
            "size": side,
            "deterministic": False,
            "repeat": 1,
            "package": facts["package"],
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new episode, seconds long: the package builds its engine anew. The seed is handed on, for what it is worth."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self._worker.forget()
        _, image = self._worker.ask({"seed": int(seed)}, self._shape)
        self._time, self._over = 0, False
        return {"image": image}, {}

    def step(self, action: Any) -> tuple[Any, NDArray[Any], bool, bool, dict[str, Any]]:
        """One action of every player."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset")
        reply, image = self._worker.ask({"actions": [int(one) for one in action]}, self._shape)
        self._time += 1
        terminal = bool(reply["last"]) and self._time < self._by_chance
        self._over = bool(reply["last"]) or self._time >= self._limit
        reward = np.array(reply["reward"], np.float64)
        if self._share != "none":
            reward = np.full_like(reward, reward.mean() if self._share == "mean" else reward.sum())
        return {"image": image}, reward, terminal, self._over and not terminal, {}

    def snapshot(self) -> dict[str, Any]:
        """There is none: a resume cuts the episode under way short."""
        return {LOST: _LOST}

    def restore(self, state: dict[str, Any]) -> NoReturn:
        """Never."""
        raise Diverged(_LOST)

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._worker.pid

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.agents or 0, *self.observation_space["image"].shape)  # type: ignore[index]


class Worker:
    """A process that runs one substrate in Melting Pot's Python. settings: see `meltingpot_worker`.

    facts: what it said when it was ready. pid: its process id. TaskError for settings that Melting Pot does not take;
    RuntimeError where it died, hangs or raised: another one may do better.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        python = meltingpot_home.python()
        self._name = f"meltingpot:{settings['substrate']}"
        self._end, far = Pipe()
        self._said = tempfile.TemporaryFile("ab+")  # noqa: SIM115 - closed with the worker
        dies = threading.current_thread() is threading.main_thread()  # only a thread that lasts may take it along
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        try:
            self._process = subprocess.Popen(
                [
                    str(python),
                    "-I",
                    str(meltingpot_home.WORKER),
                    str(far.fileno()),
                    json.dumps(settings | {"dies": dies}),
                ],
                pass_fds=(far.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                env=inherited | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # whether what stops a run stops the worker is the parent's to decide
            )
        except OSError as error:
            raise TaskError(f"{self._name}: {python} cannot be started: {error}") from error
        finally:
            far.close()  # only the child holds it now, so that its death ends the connection
        self.pid = self._process.pid
        try:
            self.facts: dict[str, Any] = self._hear(_START)["ready"]
        except BaseException:
            self.close()
            raise

    def ask(self, command: dict[str, Any], shape: tuple[int, ...]) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """What it answers to a command, and pictures of this shape."""
        image = np.empty(shape, np.uint8)
        try:
            self._end.send_bytes(json.dumps(command).encode())
            reply = self._hear(_PATIENCE)
            if not self._end.poll(_PATIENCE):
                self._fail(f"gave no answer within {_PATIENCE:g} s")
            if self._end.recv_bytes_into(image.reshape(-1).data) != image.nbytes:
                self._fail("sent another number of pixels than it said")
        except (EOFError, OSError) as error:
            self._died(error)
        return reply, image

    def forget(self) -> None:
        """What it has printed so far: the engine warns at every reset."""
        self._said.truncate(0)

    def close(self) -> None:
        """End it: it leaves when its connection ends, or is killed."""
        self._end.close()
        if self._process.poll() is None:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._said.close()

    def _hear(self, patience: float) -> dict[str, Any]:
        """The next answer."""
        try:
            if not self._end.poll(patience):
                self._fail(f"gave no answer within {patience:g} s")
            answer: dict[str, Any] = json.loads(self._end.recv_bytes())
        except (EOFError, OSError) as error:
            self._died(error)
        if "error" in answer:
            if answer["final"]:
                raise TaskError(f"{self._name}: {answer['error']}")
            self._fail(f"raised {answer['error']}")
        return answer

    def _died(self, error: Exception) -> NoReturn:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._fail(f"closed its connection ({type(error).__name__})")
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")[-300:]
        self._fail(f"died (exit code {code})" + (f": {last}" if last else ""))

    def _fail(self, what: str) -> NoReturn:
        self._process.kill()  # whatever it does: nothing more is expected of it
        raise RuntimeError(f"the worker of {self._name} {what}")

"""`smax:<scenario>`: n battles of N agents against a scripted enemy, as one compiled step on the CPU.

SMAX (JaxMARL) is a game like StarCraft's micromanagement challenges and none of them: no terrain, shields, healing or
splash, another enemy, a limit of 101 steps, a reward of 2 at most. Its win rates are no SMAC numbers.
"""

# n environments, N agents, A actions, d observation, S state

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from importlib.metadata import version
from math import isfinite
from typing import Any, Literal, NoReturn, Self, get_args

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.actions import ActionCodec
from env_adapters.errors import TaskError
from env_adapters.pictures import View, named_grids
from env_adapters.seeds import episode_seed
from env_adapters.smax_program import NOOP, program
from env_adapters.smax_scenarios import scenario
from env_adapters.step import Step, named_drops, sources
from env_adapters.team import check_allowed

Attack = Literal["closest", "random"]


class Smax:
    """n environments of one scenario that step together, with an agents axis; `make_vec("smax:3m", n)` makes one.

    Records are those of `VectorEnv` with N agents: `vector` float32 (n, N, d), `action` float32 (n, N, A), `reward` float32
    (n, N), the same for all, also for the dead; `first`, `last`, `terminal` bool (n,); `action_mask` bool (n, N, A), what
    may be chosen after this record; `alive` bool (n, N); `state` float32 (n, S), of all units, privileged; `won` bool (n,).
    A dead agent sees zeros and may choose `noop` alone. `last` without `terminal` is the limit of 101 steps (JaxMARL's
    max_steps is 100, and it looks before it counts), with both sides alive; a draw is terminal and not won.

    An episode follows from (run seed, environment, episode) and its actions, whatever n is. Everything happens in this
    process: the n environments are one call of compiled code, and after JAX has run a forked process hangs. With `send` the
    code is begun, `receive` waits for it.

    The first step of a scenario and n is compiled, 7 to 10 seconds of a processor, and kept in a folder of the user's
    (XDG_CACHE_HOME; ENV_ADAPTERS_JAX_CACHE names another, or "off").

    num_envs, observation_space, action_space, action_spec, sources, views, grids, repeat, signals, protocol, cut, failure:
    as of VectorEnv, of ONE agent. agents: N. noop: a dead agent's action. state_size: S. outcomes: signals whose value in
    the last record is a result. drawable: entries of a record of which `drawn` makes pictures. program: the compiled step.

    >>> env = Smax("3m", 2)
    >>> env.agents, env.observation_space["vector"].shape, env.action_spec.size, env.state_size
    (3, (75,), 8, 72)
    """

    repeat = 1
    noop = NOOP
    signals: tuple[str, ...] = ("won",)
    outcomes: tuple[str, ...] = ("won",)
    drawable: tuple[str, ...] = ("state", "vector")
    failure = ""  # one that cannot fail alone

    def __init__(
        self,
        name: str,
        n: int,
        *,
        see_enemy_actions: bool = True,
        walls_cause_death: bool = True,
        attack_mode: str = "closest",
        reward_scale: float = 1.0,
    ) -> None:
        """name: a scenario. The options' defaults are the setting of JaxMARL's published results.

        see_enemy_actions: whether an observation shows what visible enemies did last. walls_cause_death: leaving the map
        kills. attack_mode: which unit in range the enemy picks, the "closest" or a "random" one, until it is dead.
        reward_scale: factor on rewards, whose sum is 2 at most; 10 is SMAC's scale.

        TaskError for another scenario or value, or without the package.
        """
        scenario(name)
        if n < 1:
            raise TaskError(f"needs n >= 1; got {n}")
        if attack_mode not in get_args(Attack):
            raise TaskError(f'smax: attack_mode is {attack_mode!r}; it is "closest" or "random"')
        if not 0 < reward_scale < np.inf:
            raise TaskError(f"smax: reward_scale is {reward_scale}; it is a number above 0")
        self.program = program(
            name,
            n,
            see_enemy_actions=see_enemy_actions,
            walls_cause_death=walls_cause_death,
            attack_mode=attack_mode,
        )
        self.num_envs, self.agents, self.state_size = n, self.program.agents, self.program.state_size
        box = spaces.Box(-np.inf, np.inf, (self.program.width,), np.float32)
        self.observation_space = spaces.Dict({"vector": box})
        self.action_space = spaces.Discrete(self.program.actions)
        self.action_spec = ActionCodec(self.action_space).spec
        self.sources: dict[str, tuple[tuple[str, ...], spaces.Space[Any]]] = sources(self.observation_space)
        self.views: dict[str, View] = {}
        self.grids: tuple[str, ...] = ()
        self.drop: tuple[str, ...] = ()
        self.protocol: dict[str, Any] = {
            "name": f"SMAX {name}",
            "suite": "smax",
            "task": name,
            "agents": self.agents,
            "enemies": self.program.enemies,
            "max_steps": self.program.limit,
            "see_enemy_actions": see_enemy_actions,
            "walls_cause_death": walls_cause_death,
            "attack_mode": attack_mode,
            "enemy": "heuristic",
            "reward_scale": float(reward_scale),
            "score": f"the team's reward: damage dealt, and 1 for a win, times {reward_scale:g}; not SMAC's reward",
            "won": "no enemy is alive and an ally is; of SMAX, not to be compared with win rates of SMAC",
            "repeat": 1,
            "package": f"jaxmarl {version('jaxmarl')}",
            "jax": version("jax"),
        }
        self._scale = np.float32(reward_scale)
        self._shape = n, self.agents, self.program.actions  # of actions
        # (n, N) of each agent's first action in a flat mask
        self._places = np.arange(n * self.agents).reshape(n, -1) * self.program.actions
        self._process = os.getpid()
        self._seed, self._episode = 0, np.zeros(n, np.int64)  # (n,) of the episodes under way
        self._keys = np.zeros((n, 2), np.uint32)
        self._carry: tuple[Any, ...] | None = None
        self._last: Step | None = None
        self._sent: tuple[NDArray[np.float32], NDArray[np.bool_], dict[str, Any]] | None = None

    def reset(self, seed: int) -> Step:
        """Begin a run: every environment with its first episode. Records not yet received are dropped."""
        if seed < 0:
            raise TaskError(f"the seed is {seed}; it is a non-negative integer")
        self._seed, self._sent, self._last = int(seed), None, None
        self._episode[:] = -1  # none has begun
        self._carry = self.program.blank()
        choice = np.full(self._shape[:2], NOOP, np.int32)
        self._begin(np.zeros(self._shape, np.float32), choice, np.ones(self.num_envs, np.bool_))
        return self.receive()

    def step(self, action: NDArray[Any]) -> Step:
        """One step of every agent of every environment; action float32 (n, N, A), of which the largest entry counts."""
        self.send(action)
        return self.receive()

    def send(self, action: NDArray[Any]) -> None:
        """Begin one step with action (n, N, A); `receive` gives its records. ValueError for an action that the last record's mask forbids."""
        self._settled()
        if self._last is None:
            raise RuntimeError("call reset(seed) or load_state(state) before step")
        action = np.array(action, np.float32)
        if action.shape != self._shape:
            raise ValueError(f"action has shape {action.shape}, not {self._shape}")
        # the first look is quick, and may overflow
        if not isfinite(np.vdot(action, action)) and not np.isfinite(action).all():
            raise ValueError("action holds NaN or infinity")
        choice = action.argmax(-1)
        if np.count_nonzero(self._last["action_mask"].take(choice + self._places)) < choice.size:
            check_allowed(self.action_spec, action, self._last)
        self._begin(action, choice.astype(np.int32), self._last["last"])

    def receive(self) -> Step:
        """The records of what was sent."""
        if self._sent is None:
            raise RuntimeError("nothing was sent: call send(action) before receive")
        action, renewed, shown = self._sent
        self._sent = None
        # what JAX gave is looked at, not copied; it cannot be written to, so whoever calls gets copies
        self._last = {name: np.asarray(one) for name, one in shown.items()}
        self._last["action"], self._last["first"] = action, renewed
        if self._scale != 1.0:
            self._last["reward"] = self._last["reward"] * self._scale
        return {name: array.copy() for name, array in self._last.items()}

    def score(self, step: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """(n,) what these records count to their episodes' scores: the team's reward."""
        return step["reward"][:, 0]

    def drawn(self, name: str, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Pictures uint8 (..., H, W, 3) of values of the entry of a record that has this name, which may be a model's: the
        whole battle of a `state` (..., S), or what an agent sees, of a `vector` (..., d). See `smax_pictures`."""
        assert self.program.pictures is not None
        return {"state": self.program.pictures.battles, "vector": self.program.pictures.views}[name](values)

    def state(self) -> dict[str, Any]:
        """Everything the future depends on, as nested dicts of arrays and numbers."""
        if self._last is None or self._carry is None:
            raise RuntimeError("there is no state before reset(seed)")
        self._settled()
        # copies: whoever looks into the memory itself keeps the next step from taking it over
        units = {name: np.array(leaf) for name, leaf in zip(self.program.names, self._carry, strict=True)}
        return {
            "seed": self._seed,
            "episode": self._episode.copy(),
            "step": {name: array.copy() for name, array in self._last.items()},
            "units": units,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken, bit for bit, also in another process. TaskError for one of another task."""
        import jax.numpy as jnp

        blank = dict(zip(self.program.names, self.program.blank(), strict=True))
        units = {name: np.asarray(array) for name, array in state["units"].items()}
        mine, theirs = ({name: one.shape for name, one in some.items()} for some in (blank, units))
        if mine != theirs:
            raise TaskError(
                f"the state is of another SMAX task, or of {len(state['episode'])} environments where here are "
                f"{self.num_envs}; use the task and the number it was saved with"
            )
        self._sent = None
        self._seed, self._episode = int(state["seed"]), np.array(state["episode"], np.int64)
        self._last = {name: np.array(array) for name, array in state["step"].items()}
        self._carry = tuple(jnp.array(units[name], blank[name].dtype) for name in self.program.names)

    @property
    def cut(self) -> NDArray[np.bool_]:
        """(n,) whose episode a fault has cut short: none, ever."""
        return np.zeros(self.num_envs, np.bool_)

    def take_faults(self) -> list[str]:
        """Nothing here fails on its own."""
        return []

    def get(self, name: str) -> list[Any]:
        """An attribute of every environment: there are no environments of their own, so None each."""
        return [None] * self.num_envs

    def pids(self) -> list[int]:
        """Process ids of workers: there are none."""
        return []

    def close(self) -> None:
        """Let go of the battles; twice does no harm."""
        self._carry = self._last = self._sent = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settled(self) -> None:
        if self._sent is not None:
            raise RuntimeError("actions were sent and their records not received: call receive first")

    def _begin(self, action: NDArray[np.float32], choice: NDArray[np.int32], renew: NDArray[np.bool_]) -> None:
        """Call the compiled step; it takes the state that there was and gives the next."""
        if os.getpid() != self._process:
            raise RuntimeError(
                "smax was made in another process: one that is forked after JAX has run hangs; start it anew"
            )
        if (rows := np.flatnonzero(renew)).size:
            action[rows] = 0.0
            self._episode[rows] += 1
            episodes = zip(rows.tolist(), self._episode[rows].tolist(), strict=True)
            self._keys = self._keys.copy()  # JAX may still look at those of the last call
            # (0, seed) is what jax.random.PRNGKey(seed) makes
            self._keys[rows, 1] = [episode_seed(self._seed, row, episode) for row, episode in episodes]
        self._carry, shown = self.program.step(self._carry, choice, renew, self._keys)
        self._sent = action, renew, shown


def batch(
    name: str,
    n: int,
    *,
    workers: int | None = None,
    grids: Collection[str] | None = None,
    drop: Collection[str] | None = None,
    **options: Any,
) -> Smax:
    """What `make_vec` calls: `Smax`, without what it has no use for."""
    env = Smax(name, n, **options)
    named_grids(grids or (), env.observation_space.spaces)  # there are no pictures: a name is a mistake
    named_drops(drop or (), env.observation_space.spaces)  # and one observation, so that here it is one too
    if workers:
        warnings.warn(
            f"smax:{name} stays in this process, for its {n} environments are one compiled call: workers={workers} is left out",
            stacklevel=3,
        )
    return env


def alone(name: str, **_: Any) -> NoReturn:
    """What `make` calls: a battle has several agents and no form as one gymnasium environment."""
    scenario(name)
    raise TaskError(f"smax:{name} has several agents and is made in batches: make_vec('smax:{name}', 1), not make")

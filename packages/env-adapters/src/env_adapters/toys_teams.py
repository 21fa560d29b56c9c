"""Small worlds of several agents: whisper (another's action is what I see) and leavers (masks change, agents go)."""

# N agents, K symbols

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError
from env_adapters.seeds import read_rng, write_rng
from env_adapters.team import TeamEnv

SYMBOLS = 4  # K
_CHOICES = 3  # of an agent that has not left


class Whisper(TeamEnv):
    """N agents on a ring, two actions an episode: tell the neighbour a symbol, then name the one the other neighbour was given.

    Each agent is given one of four symbols, drawn anew. It emits one; then it sees what its left neighbour (agent k - 1 of
    agent k) emitted, and answers. The reward of every agent alike is the share of agents whose answer is the symbol that their
    left neighbour was GIVEN; it arrives with the last record, which is terminal. Whatever the others do, answers at random
    score 1/4; if everyone tells its symbol and repeats what it heard, the score is 1.

    Observation: `vector` float32 (9,), one-hots of the symbol it was given and of what its left neighbour chose last (zeros at
    first), and the share of the episode that is over: 0, 0.5 or 1. Action: Discrete(4), for both purposes.

    symbols (N,): what the agents were given, for measuring.

    >>> env = Whisper(agents=2)
    >>> _ = env.reset(seed=0), env.step(env.symbols)
    >>> env.step(env.symbols[::-1])[1].tolist()
    [1.0, 1.0]
    """

    cheap = True
    repeat = 1

    def __init__(self, agents: int = 3) -> None:
        if agents < 1:
            raise TaskError(f"toy:whisper needs at least one agent; got {agents}")
        self.agents = agents
        self.observation_space = spaces.Dict({"vector": spaces.Box(0.0, 1.0, (2 * SYMBOLS + 1,), np.float32)})
        self.action_space = spaces.Discrete(SYMBOLS)
        self.protocol: dict[str, Any] = {
            "name": "whisper",
            "agents": agents,
            "symbols": SYMBOLS,
            "max_steps": 2,
            "score": "the share of agents that name the symbol of their left neighbour",
            "repeat": 1,
        }
        self.symbols = np.zeros(agents, np.int64)
        self._time = 2

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Every agent is given a symbol."""
        super().reset(seed=seed)
        self.symbols = self.np_random.integers(SYMBOLS, size=self.agents)
        self._time = 0
        return self._observe(None), {}

    def step(self, action: Any) -> tuple[Any, NDArray[Any], bool, bool, dict[str, Any]]:
        """What every agent emits; the second time, what it answers."""
        if self._time == 2:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset")
        chosen = np.array(action, np.int64)
        self._time += 1
        over = self._time == 2
        share = float(np.mean(chosen == np.roll(self.symbols, 1))) if over else 0.0
        return self._observe(chosen), np.full(chosen.shape, share), over, False, {}

    def snapshot(self) -> dict[str, Any]:
        """Everything the future depends on."""
        return {"symbols": self.symbols.copy(), "time": self._time, "rng": write_rng(self.np_random)}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`."""
        self.symbols, self._time = np.array(state["symbols"], np.int64), int(state["time"])
        read_rng(self.np_random, state["rng"])

    def _observe(self, chosen: NDArray[np.int64] | None) -> dict[str, Any]:
        """What everyone sees after everyone's choice, if there was one."""
        one_hot = np.eye(SYMBOLS, dtype=np.float32)
        given = one_hot[self.symbols]
        heard = np.zeros_like(given) if chosen is None else one_hot[np.roll(chosen, 1)]
        over = np.full((len(given), 1), self._time / 2, np.float32)
        return {"vector": np.concatenate([given, heard, over], -1)}


class Leavers(TeamEnv):
    """N agents with three choices each, of which one is forbidden and another is right; some of the agents leave on their way.

    With a shift drawn for the episode, agent i at time t may not do (i + t + shift) mod 3 + 1 and earns 1 by doing the next
    one, (i + t + shift + 1) mod 3 + 1, else 0. Agent i leaves with the record of time `times[i]`, which still brings its reward;
    those without a time stay. Action 0 is the no-op of those who have left, and nobody else's. When nobody is there any more the
    episode is over, terminal; at `limit` it is a truncation. A perfect team's score is the mean of its lifetimes (4 by default),
    random play's half of that.

    Observation: `vector` float32 (5,), the one-hot of the forbidden choice, the share of the limit that is over, and the share
    that remains to the agent. Signals: `left` (N,), in the record with which an agent leaves; `won`, in the last one, whether
    every choice was right. State: who is there, and the share of the limit that is over.

    agents: N. times: at which agents leave, the first agent's first, "2,4" for instance; at least 1. limit: steps an episode.

    >>> env = Leavers(agents=2, times="1")
    >>> _ = env.reset(seed=0), env.step(env.right())
    >>> env.right().tolist()[0], env.step(env.right())[1].tolist()
    (0, [0.0, 1.0])
    """

    cheap = True
    repeat = 1
    noop = 0
    signals, agent_signals, outcomes = ("won", "left"), ("left",), ("won",)

    def __init__(self, agents: int = 3, times: str = "2,4", limit: int = 6) -> None:
        try:
            leave = [int(one) for one in times.split(",") if one.strip()]
        except ValueError:
            leave = [0]
        if agents < 1 or limit < 1 or len(leave) > agents or min(leave, default=1) < 1:
            raise TaskError(
                'toy:leavers needs agents >= 1, limit >= 1 and times of at most all of them, 1 or later, such as "2,4"; got '
                f"{agents}, {limit} and {times!r}"
            )
        self.agents, self.state_size = agents, agents + 1
        self._limit, self._leave = limit, np.array(leave + [limit + 1] * (agents - len(leave)))
        self.observation_space = spaces.Dict({"vector": spaces.Box(0.0, 1.0, (_CHOICES + 2,), np.float32)})
        self.action_space = spaces.Discrete(1 + _CHOICES)
        self.protocol: dict[str, Any] = {
            "name": "leavers",
            "agents": agents,
            "times": ",".join(map(str, leave)),
            "max_steps": limit,
            "score": "right choices, mean over the agents",
            "repeat": 1,
        }
        self._time, self._shift, self._perfect, self._over = 0, 0, True, True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Everyone is there again; the shift is drawn."""
        super().reset(seed=seed)
        self._time, self._shift = 0, int(self.np_random.integers(_CHOICES))
        self._perfect, self._over = True, False
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[Any, NDArray[Any], bool, bool, dict[str, Any]]:
        """A choice of 1, 2, 3 of every agent that is there, 0 of the others. ValueError for what is forbidden."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset")
        chosen, there = np.array(action, np.int64), self._there()
        forbidden = ~self._mask()[np.arange(len(chosen)), chosen]
        if forbidden.any():
            agent = int(forbidden.argmax())
            raise ValueError(f"agent {agent}: action {chosen[agent]} is masked out")
        reward = (chosen == self.right()) & there
        self._perfect &= bool((reward == there).all())
        self._time += 1
        gone = not self._there().any()
        self._over = gone or self._time >= self._limit
        return self._observe(), reward.astype(np.float64), gone, self._over and not gone, self._info()

    def right(self) -> NDArray[np.int64]:
        """(N,) the actions of a perfect team."""
        return np.where(self._there(), (self._forbidden() + 1) % _CHOICES + 1, 0)

    def snapshot(self) -> dict[str, Any]:
        """Everything the future depends on."""
        names = {"time": self._time, "shift": self._shift, "perfect": self._perfect, "over": self._over}
        return names | {"rng": write_rng(self.np_random)}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`."""
        self._time, self._shift = int(state["time"]), int(state["shift"])
        self._perfect, self._over = bool(state["perfect"]), bool(state["over"])
        read_rng(self.np_random, state["rng"])

    def _there(self) -> NDArray[np.bool_]:
        return self._time < self._leave

    def _forbidden(self) -> NDArray[np.int64]:
        """(N,) of the three choices, counted from 0."""
        return (np.arange(len(self._leave)) + self._time + self._shift) % _CHOICES

    def _mask(self) -> NDArray[np.bool_]:
        mask = np.concatenate([np.zeros((len(self._leave), 1)), 1 - np.eye(_CHOICES)[self._forbidden()]], -1) > 0
        mask[~self._there()] = np.arange(1 + _CHOICES) == 0
        return mask

    def _info(self) -> dict[str, Any]:
        state = np.append(self._there(), self._time / self._limit).astype(np.float32)
        won = self._over and self._perfect
        return {
            "action_mask": self._mask(), "alive": self._there(), "state": state, "won": won, "left": self._leave == self._time
        }  # fmt: skip

    def _observe(self) -> dict[str, Any]:
        left = np.clip(np.minimum(self._leave, self._limit) - self._time, 0, None) / self._limit
        over = np.full(len(left), self._time / self._limit)
        return {"vector": np.column_stack([np.eye(_CHOICES)[self._forbidden()], over, left]).astype(np.float32)}

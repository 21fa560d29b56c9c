"""P(right door | k-th visit of a cue) of an agent with frozen weights on fresh rules, and a memory that needs no learning.

Sizes: n environments, N agents (1 where there is no such axis), K cues, D doors. A row is an agent of an environment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

VISITS, STEPS = 10, 1000


def visits(agent: Any, envs: Any, seed: int, *, steps: int = STEPS) -> dict[str, Any]:
    """P(right door | k-th visit) for k = 1 .. 10 from an empty memory, acting by the mode, one rule a row; and how many
    visits that is. Of a team, whose reward says nothing of one, by the signal of each; `agents` has a list of its own each.
    """
    step, carry = envs.reset(seed), agent.initial(envs.num_envs)
    agents = envs.agents or 1
    rows = np.arange(envs.num_envs * agents)
    cues = step["vector"].shape[-1] - envs.action_spec.size
    count = np.zeros((len(rows), cues), np.int64)
    right, total = np.zeros((2, len(rows), VISITS + 1))
    cue = np.zeros(len(rows), np.int64)
    for _ in range(steps):
        begun, ended = (np.repeat(step[flag], agents) for flag in ("first", "last"))
        cue[begun] = step["vector"].reshape(len(rows), -1)[begun, :cues].argmax(-1)
        count[rows[begun], cue[begun]] += 1
        visit = count[rows, cue]
        of = rows[ended & (visit <= VISITS)]
        right[of, visit[of]] += step["right" if envs.agents else "reward"].ravel()[of]
        total[of, visit[of]] += 1
        carry, action, _ = agent.act(carry, step, mode=True)
        step = envs.step(action)
    found = shares(right, total) | {"n": total.sum(0)[1:].astype(int).tolist()}
    if envs.agents is None:
        return found
    return found | {"agents": [list(shares(right[i::agents], total[i::agents]).values()) for i in range(agents)]}


def shares(right: NDArray[np.float64], total: NDArray[np.float64]) -> dict[str, float]:
    """Of (rows, 1 + VISITS)."""
    return {str(k): float(right[:, k].sum() / total[:, k].sum()) for k in range(1, VISITS + 1)}


class NearestNeighbour:
    """The last visit of the cue among the last 800 records tells the door. Each row has a memory of its own, or, shared, a
    team has one, to which every agent's visits are alike.
    """

    def __init__(self, agents: int = 1, shared: bool = False, window: int = 800, seed: int = 0) -> None:
        self.agents, self.shared, self.window = agents, shared, window
        self.random = np.random.default_rng(seed)

    def initial(self, n: int) -> dict[str, Any]:
        """Nothing: of no memory and cue a door."""
        return {"time": 0, "memories": n if self.shared else n * self.agents}

    def act(
        self, carry: dict[str, Any], step: Any, mode: bool = True
    ) -> tuple[dict[str, Any], NDArray[np.float32], dict[str, Any]]:
        """What is remembered, or one at random; then what this record shows is."""
        doors = step["action"].shape[-1]
        shown = step["vector"].reshape(-1, step["vector"].shape[-1])
        memory = np.arange(len(shown)) // (len(shown) // carry["memories"])
        cue, seen = shown[:, :-doors].argmax(-1), shown[:, -doors:]
        when = carry.get("when", np.full((carry["memories"], shown.shape[1] - doors), -np.inf))
        door = carry.get("door", np.zeros(when.shape, np.int64))
        known = carry["time"] - when[memory, cue] <= self.window
        chosen = door[memory, cue].copy()
        chosen[~known] = self.random.integers(doors, size=(~known).sum())
        answered = seen.any(-1)
        when[memory[answered], cue[answered]] = carry["time"]
        door[memory[answered], cue[answered]] = seen[answered].argmax(-1)
        action = np.eye(doors, dtype=np.float32)[chosen].reshape(step["action"].shape)
        return carry | {"time": carry["time"] + 1, "when": when, "door": door}, action, {}

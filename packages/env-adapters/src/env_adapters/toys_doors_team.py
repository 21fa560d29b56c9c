"""Doors for a team: every agent has a hidden rule of its own, and all are paid for what the team knows."""

# N agents, K cues, D doors

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from env_adapters.errors import TaskError
from env_adapters.seeds import mix, read_rng, write_rng
from env_adapters.team import TeamEnv
from env_adapters.toys import Doors


class DoorsTeam(TeamEnv):
    """N agents, each before `Doors` of its own: it sees its cue, chooses, and is shown which of its doors was right.

    The rules of the agents differ, and each is redrawn by itself. The reward of every agent alike is the share of agents whose
    door was right, so that it does not tell an agent whether its own was; its own record does. Nobody sees anything of another.
    Hence only an agent's memory of its own earlier episodes can know its rule: what a memory of another's holds is wrong but
    for 1 / D of the cues. Chance is 1 / D, whatever the others do.

    Observation: `vector` float32 (K + D,), as in `Doors`. Action: Discrete(D). Signal: `right` (N,), in the record that
    shows the doors, whether the agent's own was. `rule` (N, K) and `cue` (N,) are for measurement.

    agents: N. cues, doors, redraw, seed: as in `Doors`; what happens to agent k follows from the seeds and k alone.

    >>> env = DoorsTeam(agents=2, seed=5)
    >>> _ = env.reset(seed=0)
    >>> right = env.rule[[0, 1], env.cue]
    >>> _, reward, terminal, _, info = env.step([right[0], (right[1] + 1) % 4])
    >>> reward.tolist(), info["right"].tolist(), terminal
    ([0.5, 0.5], [True, False], True)
    """

    cheap = True
    repeat = 1
    signals = agent_signals = ("right",)

    def __init__(
        self, agents: int = 3, cues: int = 32, doors: int = 4, redraw: int = 400, seed: int | None = None
    ) -> None:
        if agents < 1:
            raise TaskError(f"toy:doors_team needs at least one agent; got {agents}")
        self.agents = agents
        self._each = [Doors(cues, doors, redraw) for _ in range(agents)]
        one = self._each[0]
        self.observation_space, self.action_space = one.observation_space, one.action_space
        self.protocol: dict[str, Any] = one.protocol | {
            "name": "doors_team",
            "agents": agents,
            "max_steps": 1,
            "score": "the share of agents whose door is right",
        }
        if seed is not None:
            self.reseed(seed)

    @property
    def rule(self) -> NDArray[np.int64]:
        """(N, K) which door is right at a cue."""
        return np.stack([one.rule for one in self._each])

    @property
    def cue(self) -> NDArray[np.int64]:
        """(N,) what every agent is shown."""
        return np.array([one.cue for one in self._each], np.int64)

    def reseed(self, seed: int) -> None:
        """Begin a new instance: every agent's first rule."""
        for agent, one in enumerate(self._each):
            one.reseed(mix(seed, agent))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The next episode of everyone, each with a cue of its own."""
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**62)) if seed is None else seed
        return self._joined([one.reset(seed=mix(episode, agent) >> 1)[0] for agent, one in enumerate(self._each)]), {}

    def step(self, action: Any) -> tuple[Any, NDArray[Any], bool, bool, dict[str, Any]]:
        """A door of every agent; the right ones are shown and the episode is over."""
        chosen = np.array(action, np.int64)
        if chosen.shape != (len(self._each),):
            raise ValueError(f"toy:doors_team takes an action of each of its {self.agents} agents; got {action!r}")
        steps = [one.step(door) for one, door in zip(self._each, chosen, strict=True)]
        right = np.array([reward for _, reward, *_ in steps])
        info = {"right": right > 0}
        return self._joined([seen for seen, *_ in steps]), np.full(right.shape, right.mean()), True, False, info

    def snapshot(self) -> dict[str, Any]:
        """Everything the future depends on."""
        return {"each": [one.snapshot() for one in self._each], "rng": write_rng(self.np_random)}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`."""
        for one, saved in zip(self._each, state["each"], strict=True):
            one.restore(saved)
        read_rng(self.np_random, state["rng"])

    @staticmethod
    def _joined(seen: list[dict[str, Any]]) -> dict[str, Any]:
        return {key: np.stack([one[key] for one in seen]) for key in seen[0]}

"""PO-Dreamer of a team: every agent has the world model of one, with a memory of its own; the policy alone hears of all.

Agents are rows, in the world model too, and nothing there mixes rows: weights are shared, and no word is exchanged. What
replay keeps of them, and gives back of their past, is folded and unfolded here.
Sizes: B teams, T time, N agents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor
from wm_core import draws, health
from wm_core.agent import Agent
from wm_core.contracts import Experience, Metrics, Update
from wm_core.joint import model_update
from wm_core.optim import Together
from wm_core.types import Batch, Carry, Dream, Steps, Trace
from wm_marl import PPO, by_rows, fold, fold_steps, mask_metrics, unfold

from po_dreamer.diagnosis import diagnose, due
from po_dreamer.refresh import Refresh


class PODreamerTeam(Agent):
    """The world model learns from rows of agents, then PPO in its dreams.

    relabel: steps of rows -> steps in which who is dead has nothing to see and nothing to choose. credited: what the agents
    dreamed of the team's reward, each by itself -> what each is credited with. model_first: updates in which the world
    model alone learns.
    """

    behaviour: PPO
    optimiser: Together

    def __init__(
        self,
        *,
        agents: int,
        relabel: Callable[[Steps], Steps],
        credited: Callable[[Dream], Dream],
        batch: int,
        length: int,
        horizon: int,
        dream_last: int,
        model_first: int,
        scales: dict[str, float],
        diagnose_every: int,
        online: bool,
        past: int,
        refresh: Refresh | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.agents, self.relabel, self.credited = agents, relabel, credited
        self.refresh, self.online, self.past = refresh, online, past
        self.batch, self.length, self.scales = batch, length, scales
        self.horizon, self.dream_last, self.model_first = horizon, dream_last or length, model_first
        self.diagnose_every, self.updates = diagnose_every, 0

    # ---- acting

    @property
    def stores(self) -> Mapping[str, int]:
        return super().stores if self.refresh is None else {**super().stores, **self.refresh.stores}

    def rows(self, entries: Mapping[str, Tensor]) -> Steps:
        return fold_steps(dict(entries), self.agents)

    def folded(self, batch: Batch) -> Batch:
        return fold(batch)

    def initial(self, n: int) -> Carry:
        return super().initial(n * self.agents)

    def choose(
        self, carry: Carry, steps: Steps, mode: bool, temperature: float = 1.0
    ) -> tuple[Carry, Tensor, dict[str, Tensor]]:
        """Actions (n, N, A) of n teams, and what replay keeps of each agent, (n, N, ...)."""
        carry, action, notes = super().choose(carry, self.rows(steps), mode, temperature)
        apart = {name: value.unflatten(0, (-1, self.agents)) for name, value in {"action": action, **notes}.items()}
        return carry, apart.pop("action"), apart

    # ---- learning

    def learn(self, replay: Experience) -> Metrics:
        batch = self.to_device(replay.sample(self.batch, self.length, past=self.past))
        looked = diagnose(self, self.ready(batch)) if due(self.updates, self.diagnose_every) else {}
        young = self.updates < self.model_first
        metrics, stored = self.update_world(batch) if young else self.updated(batch)
        self.updates += 1
        replay.annotate(batch.index, **stored)
        return metrics | looked

    def update(self, *batches: Batch) -> Update:
        """One step of the world model on a batch of teams, then PPO's epochs on one dream from their last steps."""
        world, batch = self.world, self.ready(*batches)
        metrics, trace = self.step_model(batch)
        with draws.drawing(self.source), self.computing():
            dream = world.dream(world.starts(trace, self.dream_last), self.behaviour.policy, self.horizon)
            metrics |= self.behaviour.optimise(self.credited(dream))
            self.behaviour.follow()
        seen = by_rows(dream, self.agents, min(self.dream_last, batch.steps["first"].shape[1]))
        metrics |= health.dreamed(seen, batch.steps, world.discount)
        metrics |= mask_metrics(seen.mask, batch.steps["action_mask"])
        return metrics, unfold(world.stored(trace), self.agents)

    def update_world(self, *batches: Batch) -> Update:
        """The first half of it."""
        metrics, trace = self.step_model(self.ready(*batches))
        return metrics, unfold(self.world.stored(trace), self.agents)

    def ready(self, batch: Batch) -> Batch:
        """A batch of teams as rows to learn from: the dead as they are to be, and keys anew where none are kept."""
        rows = self.folded(batch)
        rows = replace(rows, steps=self.relabel(rows.steps))
        return rows if self.refresh is None or rows.past is None else replace(rows, past=self.refresh(rows.past))

    def step_model(self, rows: Batch) -> tuple[Metrics, Trace]:
        """Metrics of the world model's step on rows, and the trace it was learned from."""
        self.train()
        return model_update(self, rows.steps, past=rows.past, rule=self.optimiser.rules["model"], scales=self.scales)

    def state(self) -> dict[str, Any]:
        return super().state() | {"updates": self.updates}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.updates = state["updates"]

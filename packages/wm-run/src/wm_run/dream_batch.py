"""Observed rows -> n dreams side by side -> one step of all by one call of the model, or sequences of actions scored.

Knows no gymnasium. Nothing here carries gradient, and nothing of the agent changes.
Sizes: n dreams, T observed steps, A action, k sequences of h actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from wm_core import draws
from wm_core.agent import Agent
from wm_core.errors import UserError
from wm_core.fast.resting import resting
from wm_core.starts import join, take
from wm_core.types import Carry, Latent, Start, Steps
from wm_core.world import WorldModel, stack

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Simulated:
    """What the model expects of k sequences of h actions from one state.

    reward (k, h): the mean, on arrival. ending (k, h): the probability that the episode ends there, if it got there.
    value (k,): what the critic expects from the last state on, in its own discounting; nan where there is no critic.
    """

    reward: Tensor
    ending: Tensor
    value: Tensor

    def returns(self, discount: float = 1.0, *, bootstrap: bool = False) -> Tensor:
        """(k,) expected sums: sum_t discount^t P(it got to t) reward_t, and with `bootstrap` the value of the last state.

        >>> told = Simulated(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.5, 0.0]]), torch.tensor([8.0]))
        >>> told.returns().tolist(), told.returns(0.5, bootstrap=True).tolist()
        ([1.5], [2.25])
        """
        kept = (1 - self.ending).cumprod(1)
        there = torch.cat([torch.ones_like(kept[:, :1]), kept[:, :-1]], 1)
        powers = discount ** torch.arange(self.reward.shape[1], device=self.reward.device)
        sums = (powers * there * self.reward).sum(1)
        return sums + discount ** self.reward.shape[1] * kept[:, -1] * self.value if bootstrap else sums


class Dreams:
    """n dreams of one agent's world model.

    mode: latents are the prior's modes; else samples, from a generator of its own that `seed` sets. Of rewards the mean is
    told either way: a sample of a two-hot is one of its bins, up to 4.85e8.

    start, latent: where they are, n rows each; None before `observe` or `follow`. They are never changed in place.
    """

    def __init__(self, agent: Agent, *, mode: bool = False) -> None:
        self.agent, self.mode = agent, mode
        self.source: draws.Fixed | draws.Generator = draws.Fixed() if mode else draws.Generator(0, agent.device)
        self.start: Start = None
        self.latent: Latent | None = None
        agent.eval()

    @property
    def world(self) -> WorldModel:
        return self.agent.world

    def seed(self, seed: int) -> None:
        """What is drawn from here on depends on this alone."""
        if isinstance(self.source, draws.Generator):
            self.source = draws.Generator(seed, self.agent.device)

    def state(self) -> Any:
        """All that goes on from here, for `load_state`: by reference, so it costs next to nothing."""
        drawn = self.source.state_dict() if isinstance(self.source, draws.Generator) else None
        return self.start, self.latent, drawn

    def load_state(self, state: Any) -> None:
        """Stand where `state` was taken."""
        self.start, self.latent, drawn = state
        if isinstance(self.source, draws.Generator):
            self.source.load_state_dict(drawn)

    # ---- beginning

    def observe(self, steps: Steps) -> None:
        """All dreams begin at the end of these rows (n, T, ...), whose first step begins with nothing known."""
        with self._working(self.source):
            self.start, self.latent = self._begun(steps)

    def follow(self, carry: Carry, steps: Steps) -> Carry:
        """They begin where an agent stands that observes these steps (n, T, ...) from a carry, None being the one before
        any step; gives its carry after them."""
        with self._working(self.source):
            carry = self.world.prefill(None, len(steps["first"])) if carry is None else carry
            trace = self.world.observe(carry, steps)
            self.start, self.latent = self.world.starts(trace, 1)
        return trace.carry

    def _begun(self, steps: Steps) -> tuple[Start, Latent]:
        trace = self.world.observe(self.world.prefill(None, len(steps["first"])), steps)
        return self.world.starts(trace, 1)

    # ---- going on

    def step(self, action: Tensor, anew: Tensor | None = None, steps: Steps | None = None) -> tuple[Tensor, Tensor]:
        """One prior step of every dream with action (n, A): rewards (n,) and the probabilities (n,) of an end on arrival.

        anew (n,) bool: which dreams do not go on, but begin again at the end of `steps`, a row for each of them in order.
        """
        if anew is None or not bool(anew.any()):
            with self._working(self.source):
                self.start, self.latent = self.world.imagine(self.start, action)
                return self._reward_and_end(self.latent)
        assert steps is not None
        on, again = (~anew).nonzero()[:, 0], anew.nonzero()[:, 0]
        with self._working(self.source):
            parts = [self._begun(steps)]
            if len(on):
                parts.append(self.world.imagine(take(self.start, on), action[on]))
            order = torch.cat([again, on]).argsort()
            starts, latents = zip(*parts, strict=True)
            self.start, self.latent = take(join(starts), order), take(join(latents), order)
            return self._reward_and_end(self.latent)

    def simulate(self, actions: Tensor, row: int = 0) -> Simulated:
        """k sequences of actions (k, h, A) from where dream `row` is, as one batch. It stays there: what is drawn is drawn
        by a copy of the generator, so the same sequences are told the same, and one sequence what stepping would tell."""
        left = self.world.dynamics.left(self.start)
        if actions.shape[1] > left:
            raise UserError(
                f"{actions.shape[1]} actions ahead were asked for, and this model can hold {int(left)} more: give fewer"
            )
        source = self.source
        if isinstance(source, draws.Generator):
            source = draws.Generator(0, self.agent.device)
            source.load_state_dict(self.source.state_dict())  # type: ignore[union-attr]
        latents = []
        with self._working(source), resting():
            start = take(self.start, torch.full((len(actions),), row, device=self.agent.device))
            for action in actions.unbind(1):
                start, latent = self.world.imagine(start, action)
                latents.append(latent)
            dreamt = stack(latents)
            reward, ending = self._reward_and_end(dreamt)
            critic = self.agent.behaviour.networks().get("critic")
            last = dreamt.at(-1)
            value = reward.new_full((len(actions),), torch.nan) if critic is None else critic(last).mode().float()
        return Simulated(reward, ending, value)

    def shown(self, look: Callable[[Latent], Seen], latent: Latent | None = None) -> Seen:
        """What a function without gradient makes of the latents (n, ...), in the agent's precision."""
        with self._working(self.source):
            found = self.latent if latent is None else latent
            assert found is not None
            return look(found)

    def _reward_and_end(self, latent: Latent) -> tuple[Tensor, Tensor]:
        """Reward and probability of an end in latents (...): each (...)."""
        world = self.world
        reward: Tensor = world.heads["reward"](latent).mode().float()
        return reward, 1 - world.going(latent)

    @contextmanager
    def _working(self, source: draws.Source) -> Iterator[None]:
        with torch.no_grad(), draws.drawing(source), self.agent.computing():
            yield

"""What an agent expects at every step of a play, in the environment or in the dream: its predictions, drawn.

Sizes: N agents (1 where there is no team), A action, H W C image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core import draws
from wm_core.agent import Agent
from wm_core.observations import is_image
from wm_core.types import Carry, Latent, Recollection, Steps, Trace
from wm_core.world import MASK, stack

from wm_run.drawing import Draw
from wm_run.loop import Environments
from wm_run.teams import Team

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """What the model makes of one state: everything it predicts there, and the action that the policy would take."""

    reward: float
    value: float
    cont: float  # probability that the episode goes on, without the discount
    shown: NDArray[Any] | None  # the observation as decoded: (H, W, C) in [0, 1], or a vector (X,)
    action: Vector  # (A,)
    everyone: NDArray[np.float32]  # (N, A) the actions of the whole team
    allowed: NDArray[np.bool_] | None = None  # (A,) what may be chosen, where that is said
    beside: tuple[NDArray[Any], ...] = ()  # of a team what each of its agents decodes, as `shown`


def key_shown(envs: Environments) -> str | None:
    """The observation to draw: the first image, else the first vector, else none."""
    spaces = envs.observation_space.spaces
    images = [key for key, space in spaces.items() if is_image(space)]
    vectors = [key for key, space in spaces.items() if np.dtype(space.dtype).kind == "f" and space.shape]
    return next(iter([*sorted(images), *sorted(vectors)]), None)


class Observer:
    """An agent that says what it expects. Draws depend on `seed` alone. team: where there is one, `which` of its agents
    is asked. draw: of the observation a picture, where it is none."""

    def __init__(
        self,
        agent: Agent,
        key: str | None,
        *,
        seed: int,
        mode: bool = False,
        team: Team | None = None,
        which: int = 0,
        draw: Draw | None = None,
    ) -> None:
        self.agent, self.key, self.mode, self.team, self.which = agent, key, mode, team, which
        self.draw: Draw = draw or flattened
        self.source = draws.Generator(seed, agent.device)
        agent.eval()

    @torch.no_grad()
    def observe(self, carry: Carry, step: Mapping[str, NDArray[Any]]) -> tuple[Trace, Predictions]:
        """One real step (1, ...)."""
        steps, world = self._rows(step), self.agent.world
        with draws.drawing(self.source), self.agent.computing():
            trace = world.observe(carry, steps)
            return trace, self._predictions(world.latest(trace), self._allowed(steps))  # what it was trained to act on

    @torch.no_grad()
    def expect(self, trace: Trace, step: Mapping[str, NDArray[Any]]) -> Predictions:
        """Anew of a trace's last step (1, ...): the policy draws again."""
        with draws.drawing(self.source), self.agent.computing():
            return self._predictions(self.agent.world.latest(trace), self._allowed(self._rows(step)))

    @torch.no_grad()
    def begin(self, trace: Trace, step: Mapping[str, NDArray[Any]]) -> tuple[Carry, Predictions]:
        """A dream from a trace's last step (1, ...). A world may draw where it begins, and the policy then acts on that
        draw; what is allowed there is known."""
        with draws.drawing(self.source), self.agent.computing():
            carry, latent = self.agent.world.starts(trace, 1)
            return carry, self._predictions(latent, self._allowed(self._rows(step)))

    @torch.no_grad()
    def imagine(self, carry: Carry, actions: NDArray[np.float32]) -> tuple[Carry, Predictions]:
        """One step of a dream, with everyone's actions (N, A)."""
        with draws.drawing(self.source), self.agent.computing():
            carry, latent = self.agent.world.imagine(carry, torch.as_tensor(actions).to(self.agent.device))
            return carry, self._predictions(latent, self.agent.world.mask(latent))

    @torch.no_grad()
    def recalled(self, carry: Carry, step: Mapping[str, NDArray[Any]]) -> Recollection | None:
        """Which past steps `observe` recalls at one real step (1, ...); it draws nothing."""
        with draws.drawing(draws.Fixed()), self.agent.computing():
            return self.agent.world.recalled(carry, self._rows(step))

    def seen(self, step: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
        """The observation to draw: (H, W, C), or flat."""
        return None if not self.key else self.pictured(step[self.key][0])

    def pictured(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Of one step's observation, of a team all its agents' (N, ...), that of the agent asked, to draw."""
        return self.draw(frame if self.team is None else frame[self.which])

    def beside(self, step: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """The same, each (H, W, C) or flat, of every agent of a team; () of one alone."""
        return () if self.team is None or not self.key else tuple(self.draw(one) for one in step[self.key][0])

    def together(self, predicted: Predictions, action: Vector) -> NDArray[np.float32]:
        """Everyone's actions (N, A), with this one of the agent that is asked."""
        actions = predicted.everyone.copy()
        actions[self.which] = action
        return actions

    def sent(self, predicted: Predictions, action: Vector) -> NDArray[np.float32]:
        """The same as one environment takes it: (1, A), or (1, N, A) of a team."""
        actions = self.together(predicted, action)
        return actions if self.team is None else actions[None]

    def _rows(self, step: Mapping[str, NDArray[Any]]) -> Steps:
        """A step (1, ...) as the world model takes it: (N, 1, ...)."""
        given = {name: torch.as_tensor(value)[:, None].to(self.agent.device) for name, value in step.items()}
        return self.agent.rows(given)

    def _allowed(self, steps: Steps) -> Tensor | None:
        return steps[MASK][:, -1] if self.agent.world.masks else None

    def _predictions(self, latent: Latent, mask: Tensor | None) -> Predictions:
        """Of a latent (N, ...) and the mask there."""
        world, behaviour = self.agent.world, self.agent.behaviour
        latent = stack([latent])
        policy = world.act(behaviour.policy, latent, None if mask is None else mask[:, None])
        action = policy.mode() if self.mode else policy.sample()
        critic = getattr(behaviour, "critic", None)  # no promise of Behaviour's
        shown = world.decoder(latent)[self.key].mode() if self.key else None
        return Predictions(
            reward=self._number(world.heads["reward"](latent).mode()),
            value=self._number(critic(latent).mode()) if critic is not None else float("nan"),
            cont=self._number(world.going(latent)),
            shown=None if shown is None else self.draw(self._array(shown)),
            action=self._array(action),
            everyone=action[:, 0].float().cpu().numpy(),
            allowed=None if mask is None else mask[self.which].cpu().numpy(),
            beside=() if shown is None or self.team is None else self._each(shown),
        )

    def _number(self, value: Tensor) -> float:
        """Of (N, 1) that of the agent asked."""
        return float(value[self.which].float().reshape(()).cpu())

    def _array(self, value: Tensor) -> NDArray[np.float32]:
        """Of (N, 1, ...) that of the agent asked."""
        return value[self.which, 0].float().cpu().numpy()

    def _each(self, value: Tensor) -> tuple[NDArray[Any], ...]:
        """Of (N, 1, ...) that of every agent, drawn."""
        return tuple(self.draw(one) for one in value[:, 0].float().cpu().numpy())


def flattened(value: NDArray[Any]) -> NDArray[Any]:
    """(H, W, C) as it is, anything else flat."""
    return value if value.ndim == 3 else value.reshape(-1)

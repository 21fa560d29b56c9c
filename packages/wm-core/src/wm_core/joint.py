"""world losses -> a dream -> behaviour losses -> one step of one optimiser: DreamerV3's update, as one verb; and its first
part alone, for behaviours that take steps of their own.

Whoever learns so says it in a line of his `update`; what is his own (which batch, what of it, further metrics) stands
beside that line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch

from wm_core import draws, health, names
from wm_core.agent import Agent
from wm_core.contracts import JointBehaviour, Metrics, Update
from wm_core.optim import Rule, Together, averages, total
from wm_core.types import Batch, Dream, Latent, Past, Start, Steps, Trace
from wm_core.world import Policy

BEHAVIOUR = ("policy", "value", "replay_value")  # the losses of a `JointBehaviour`


class Imagine(Protocol):
    """How a dream is made: `WorldModel.dream`, or one that keeps gradients (`wm_core.pathwise`)."""

    def __call__(self, start: tuple[Start, Latent], policy: Policy, horizon: int) -> Dream: ...


def loss_scales(
    observations: Iterable[str], *, reconstruction: float = 1.0, dyn: float = 1.0, rep: float = 0.1, **more: float
) -> dict[str, float]:
    """The scale of every loss of such an update by its name: of the `observations`, of reward, continuation, policy and
    value, which are 1, of both KL terms, and of `more` ("replay_value", regularisers, heads of one's own).

    >>> loss_scales(["image"], replay_value=0.3)  # doctest: +NORMALIZE_WHITESPACE
    {'obs/image': 1.0, 'reward': 1.0, 'cont': 1.0, 'dyn': 1.0, 'rep': 0.1, 'policy': 1.0, 'value': 1.0,
     'replay_value': 0.3}
    """
    model = model_scales(observations, reconstruction=reconstruction, dyn=dyn, rep=rep)
    return names.together(model, {"policy": 1.0, "value": 1.0}, more)


def model_scales(
    observations: Iterable[str], *, reconstruction: float = 1.0, dyn: float = 1.0, rep: float = 0.1, **more: float
) -> dict[str, float]:
    """The same of the world model's losses alone, for `model_update`.

    >>> model_scales(["vector"], action_mask=1.0)
    {'obs/vector': 1.0, 'reward': 1.0, 'cont': 1.0, 'dyn': 1.0, 'rep': 0.1, 'action_mask': 1.0}
    """
    ones = {"reward": 1.0, "cont": 1.0, "dyn": dyn, "rep": rep}
    return names.together(names.observed(dict.fromkeys(observations, reconstruction)), ones, more)


def model_update(
    agent: Agent,
    steps: Steps,
    *,
    rule: Rule | Together,
    scales: Mapping[str, float],
    past: Past | None = None,
    counted: bool = True,
) -> tuple[Metrics, Trace]:
    """One step of `rule` on the losses of the world model alone, for whom the behaviour takes steps of its own.

    steps are those of rows (B, T, ...), past what was stored of the steps before them; scales name the world's losses;
    counted says whether the agent's clock counts it as an update, which one of several steps in an update is not. Gives
    metrics, and the trace from which dreams start.
    """
    world = agent.world
    with draws.drawing(agent.source), agent.computing():
        losses, trace = world.losses(world.prefill(past, len(steps["first"])), steps, agent.clock)
    means = averages(losses)
    optimised = rule.step(total(means, scales))
    torch.clear_autocast_cache()  # which holds the weights as they were before the step
    if counted:
        agent.clock.count_update()
    shown = names.logged(means)
    metrics: Metrics = {f"loss/{shown[name]}": mean.detach() for name, mean in means.items()}
    metrics |= {f"opt/{name}/model": value for name, value in optimised.items()}
    return metrics | health.latents(trace.post, trace.prior), trace


def world_update(agent: Agent, batch: Batch, *, scales: Mapping[str, float]) -> Update:
    """The first half of `joint_update` by itself: the world model learns, and behind the behaviour's parameters, which the
    same optimiser may hold, stands a gradient of zero, so that they stay where they are.

    scales: as of `joint_update`, of which those of the behaviour's losses are left out.
    """
    agent.train()
    own = {name: scale for name, scale in scales.items() if name not in BEHAVIOUR}
    metrics, trace = model_update(agent, batch.steps, rule=agent.optimiser, scales=own, past=batch.past)
    return metrics | agent.world.regularised(batch.steps["weight"]), agent.world.stored(trace)


def joint_update(
    agent: Agent,
    behaviour: JointBehaviour,
    batch: Batch,
    *,
    scales: Mapping[str, float],
    horizon: int,
    dream_last: int = 0,
    imagine: Imagine | None = None,
) -> Update:
    """One gradient step of world model and behaviour on all their losses together (DreamerV3, eq. 1 and 5 to 7).

    Tensors alone: nothing is read on the host, and what changes is in `agent.changing()`, in place. Separation is by
    stop-gradients: a dream carries none, the replay value's reaches the world model.

    Args:
        agent: whose world model, optimiser, source and clock these are.
        behaviour: the agent's own, of the kind whose losses join the world model's.
        batch: rows (B, T), and what was stored of the steps before them.
        scales: of every loss by its name, plain means being summed; without "replay_value" there is no such loss.
        horizon: steps of imagination.
        dream_last: the last steps of each row from which dreams start; 0, or more than a row has: all.
        imagine: how a dream is made; None: by `WorldModel.dream`.

    Returns: metrics, 0-d on the device, and what replay keeps of the batch's steps, (B, T, ...).
    """
    agent.train()
    world, steps = agent.world, batch.steps
    with draws.drawing(agent.source):
        with agent.computing():
            carry = world.prefill(batch.past, len(steps["first"]))
            losses, trace = world.losses(carry, steps, agent.clock)
            dream = (imagine or world.dream)(world.starts(trace, dream_last), behaviour.policy, horizon)
            evaluation: Any = behaviour.evaluate(dream)
            losses = names.together(losses, behaviour.losses(dream, evaluation))
            if "replay_value" in scales:
                losses = names.together(losses, behaviour.replay_value(trace, steps, evaluation))
        means = averages(losses)
        optimised = agent.optimiser.step(total(means, scales))
    behaviour.follow()
    agent.clock.count_update()
    shown = names.logged(means)
    metrics: Metrics = {f"loss/{shown[name]}": mean.detach() for name, mean in means.items()}
    metrics |= {f"opt/{name}": value for name, value in optimised.items()}
    metrics |= world.regularised(steps["weight"])
    metrics |= world.metrics(trace, steps, dream) | behaviour.metrics(dream, evaluation)
    return metrics, world.stored(trace)

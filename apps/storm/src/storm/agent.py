"""STORM: build, learn (Zhang et al. 2023). The world model learns from 16 long rows, the policy from 1024 short ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from wm_core import draws, names
from wm_core.agent import Agent
from wm_core.contracts import Experience, Metrics, Update
from wm_core.health import latents
from wm_core.kl import BalancedKL
from wm_core.observations import describe
from wm_core.optim import Adam, NormClip, Together, total
from wm_core.types import Batch, Steps, Trace

from storm.behaviour import StormActorCritic
from storm.config import Config
from storm.heads import BINS, StormHead, StormPolicy, SymlogTwoHot, reward_and_continue
from storm.observations import ObservationDecoder, ObservationEncoder
from storm.parts import make_dynamics, value_alignment
from storm.world import PriorWorld, StormWorld, rows

SEES = ("stoch", "deter")  # what policy and critic look at


class Storm(Agent):
    """STORM."""

    world: StormWorld
    behaviour: StormActorCritic
    optimiser: Together
    online = False  # its replay is uniform

    def __init__(
        self,
        *,
        batch: int,
        length: int,
        dreams: int,
        context: int,
        horizon: int,
        scales: dict[str, float],
        observed: tuple[str, ...],
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.batch, self.length, self.horizon, self.scales = batch, length, horizon, scales
        self.dreams, self.context, self.observed = dreams, context, observed

    def learn(self, replay: Experience) -> Metrics:
        contexts = self.to_device(replay.sample(self.dreams, self.context + 1))
        length = self.length + replay.ready(self.length + 1)  # the loop may ask when there are just `length` steps
        return self.updated(self.to_device(replay.sample(self.batch, length)), contexts)[0]

    def update(self, *batches: Batch) -> Update:
        """Of two batches: one gradient step of the world model on rows (B, T+1), one of policy and critic in dreams that
        begin after contexts (M, C+1). There is nothing to note."""
        batch, contexts = batches
        world, behaviour, rules = self.world, self.behaviour, self.optimiser.rules
        with draws.drawing(self.source):
            losses, trace, steps = self.world_losses(batch)
            optimised = {"world": rules["world"].step(total(losses, self.scales))}
            self.eval()  # imagination: no dropout, running statistics
            with self.computing():
                with torch.no_grad():
                    context = world.context(contexts.steps)
                dream = world.dream(world.starts(context, 1), behaviour.policy, self.horizon)
                learned, metrics = behaviour.evaluate(dream)
            optimised["behaviour"] = rules["behaviour"].step(total(learned, dict.fromkeys(learned, 1.0)))
        behaviour.follow()
        self.clock.count_update()
        both = names.together(losses, learned)
        shown = names.logged(both)
        metrics |= {f"loss/{shown[name]}": loss.detach().mean() for name, loss in both.items()}
        metrics |= {f"opt/{name}/{rule}": v for rule, found in optimised.items() for name, v in found.items()}
        metrics |= world.regularised(steps["weight"])
        return metrics | latents(trace.post[:, 1:], trace.prior[:, 1:]), {}

    def update_world(self, *batches: Batch) -> Update:
        """The first of both steps; no dream begins, whatever the contexts are."""
        with draws.drawing(self.source):
            losses, trace, steps = self.world_losses(batches[0])
            optimised = self.optimiser.rules["world"].step(total(losses, self.scales))
        self.clock.count_update()
        shown = names.logged(losses)
        metrics = {f"loss/{shown[name]}": loss.detach().mean() for name, loss in losses.items()}
        metrics |= {f"opt/{name}/world": value for name, value in optimised.items()}
        metrics |= self.world.regularised(steps["weight"])
        return metrics | latents(trace.post[:, 1:], trace.prior[:, 1:]), {}

    def world_losses(self, batch: Batch) -> tuple[dict[str, Tensor], Trace, Steps]:
        """The world model's losses (B, T+1) of a batch, the trace, and the steps as they were learned from."""
        self.train()
        steps = self.ready(batch).steps
        with self.computing():
            losses, trace = self.world.losses(self.world.prefill(None, self.batch), steps, self.clock)
        return losses, trace, steps

    def ready(self, batch: Batch) -> Batch:
        """A batch whose first steps give their z alone, and where a lost life ends the return."""
        return replace(batch, steps=rows(batch.steps, self.observed))


def build(config: Config, observation_space: Any, action_spec: Any) -> Storm:
    """The agent of a config for one environment's spaces; UserError for a space that the encoder cannot read."""
    torch.manual_seed(config.seed)
    seen = describe(observation_space)
    own = draws.Generator(config.seed + 1, config.device)
    with torch.device(config.device):
        encoder = ObservationEncoder(seen, width=config.width, depth=config.depth)
        dynamics = make_dynamics(config, encoder.width, action_spec.size)
        widths = dynamics.widths
        behaviour = StormActorCritic(
            policy=StormPolicy(
                discrete=action_spec.discrete,
                continuous=action_spec.continuous,
                widths=widths,
                width=config.width,
                reads=SEES,
            ),
            critic=StormHead(SymlogTwoHot, BINS, widths=widths, width=config.width, reads=SEES),
            lam=config.lam,
            entropy=config.entropy,
            slow_rate=config.slow_rate,
            value_index=config.value_index,
        )
        kind = PriorWorld if config.act_on == "prior" else StormWorld
        world = kind(
            encoder=encoder,
            dynamics=dynamics,
            decoder=ObservationDecoder(seen, stoch=widths["stoch"], width=config.width, depth=config.depth),
            heads=reward_and_continue(widths, width=config.width, discount=config.discount),
            kl=BalancedKL(config.free_nats, clip=config.kl_clip),
            discount=1.0,  # the target of the continue head; a dream's discount is in what that head gives
            **value_alignment(config, behaviour, own),
        )
        optimiser = Together(
            world=Adam(world.parameters(), lr=config.lr, clip=NormClip(config.clip)),
            behaviour=Adam(
                behaviour.parameters(), lr=config.behaviour_lr, eps=1e-5, clip=NormClip(config.behaviour_clip)
            ),
        )
    scales = names.observed(dict.fromkeys(seen.keys, 1.0)) | {"reward": 1.0, "cont": 1.0}
    scales |= {"dyn": config.dyn_scale, "rep": config.rep_scale} | dict.fromkeys(world.regularisers, 1.0)
    return Storm(
        world=world,
        behaviour=behaviour,
        optimiser=optimiser,
        seed=config.seed,
        precision=config.precision,
        batch=config.batch,
        length=config.length,
        dreams=config.dreams,
        context=config.dream_context,
        horizon=config.horizon,
        scales=scales,
        observed=seen.keys,
        sources={"own": own},
    )

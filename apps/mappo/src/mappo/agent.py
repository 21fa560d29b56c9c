"""MAPPO: build, act, learn (Yu et al. 2022). The newest row of every environment is learned from, once, in some epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from wm_core import draws, names
from wm_core.contracts import Experience, Metrics, Update
from wm_core.fast.compiled import Part
from wm_core.images import StridedEncoder
from wm_core.learner import Learner, trainable
from wm_core.observations import Observations, describe
from wm_core.optim import Adam, NormClip, Together
from wm_core.types import Batch, Carry, Steps
from wm_marl.ppo import clipped_loss
from wm_run.teams import Team

from mappo import experience
from mappo.config import Config
from mappo.losses import clipped_value_loss
from mappo.memory import GRUMemory, NoMemory
from mappo.networks import Actor, Critic, Sight
from mappo.transformer import MATActor, MATCritic
from mappo.value_norm import Unscaled, ValueNorm


class Mappo(Learner):
    """One policy for all agents, and a critic of the whole team.

    actor, critic: of `mappo.networks`, or of `mappo.transformer`. norm: of `mappo.value_norm`. agents: N. batch, length: rows, and records of each.
    backward: L, steps of a piece. The others as in `Config`.
    """

    optimiser: Together
    aligned = True  # every transition is in one row

    def __init__(
        self,
        *,
        actor: Actor | MATActor,
        critic: Critic | MATCritic,
        norm: ValueNorm | Unscaled,
        agents: int,
        batch: int,
        length: int,
        backward: int,
        epochs: int,
        minibatches: int,
        clip: float,
        entropy: float,
        discount: float,
        lam: float,
        advantage_floor: float,
        huber: float,
        dead_values: bool,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.actor, self.critic, self.norm, self.agents = actor, critic, norm, agents
        self.batch, self.length, self.backward = batch, length, backward
        self.epochs, self.minibatches = epochs, minibatches
        self.clip, self.entropy, self.huber = clip, entropy, huber
        self.discount, self.lam = discount, lam
        self.advantage_floor, self.dead_values = advantage_floor, dead_values

    # ---- acting

    @property
    def stores(self) -> dict[str, int]:
        return names.noted(self.actor.memory.stores)

    def initial(self, n: int) -> Carry:
        return self.actor.memory.initial(n, self.agents)

    @torch.no_grad()
    def choose(
        self, carry: Carry, steps: Steps, mode: bool, temperature: float = 1.0
    ) -> tuple[Carry, Tensor, dict[str, Tensor]]:
        """`act` on steps (n, 1, ...), tensors alone. What is noted: the log-probability of the action, and the memory."""
        with draws.drawing(self.source), self.computing():
            policy, known = self.actor(steps, carry)
            policy = policy if temperature == 1 else policy.tempered(temperature)
            action = policy.mode() if mode else policy.sample()
            notes = known | {"log_prob": policy.log_prob(action)}
        carry = {name: value[:, 0] for name, value in known.items()}
        return carry, action[:, 0], names.noted({name: value[:, 0] for name, value in notes.items()})

    # ---- learning

    def learn(self, replay: Experience) -> Metrics:
        past = max(self.stores.values(), default=0)
        return self.updated(self.to_device(replay.sample(self.batch, self.length, past=past)))[0]

    def update(self, *batches: Batch) -> Update:
        """Epochs of steps of both optimisers on rows (B, T + 1). There is nothing to note."""
        found: list[Metrics] = []
        with draws.drawing(self.source):
            self.train()
            whole, metrics = self.prepared(*batches)
            for part in self.parts(whole):
                with self.computing():
                    losses, measured = self.losses(part)
                optimised = self.optimiser.step(losses["policy"] + losses["value"])
                found.append(measured | {f"opt/{name}": value for name, value in optimised.items()})
            self.actor.follow()
        self.clock.count_update()
        return metrics | {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}, {}

    @torch.no_grad()
    def prepared(self, batch: Batch) -> tuple[Steps, Metrics]:
        """What rests over the epochs, in pieces (R, L, N, ...) each with what the actor knew before it (R, N, ...)."""
        steps = batch.steps
        with self.computing():
            value = self.critic(steps)  # (B, T + 1, N)
        real = self.norm.real(value)
        advantage = experience.advantages(steps, real, discount=self.discount, lam=self.lam)
        returns = advantage + real[:, :-1]
        shares = experience.weights(steps, dead_values=self.dead_values)
        self.norm.follow(returns, shares[1])
        whole = experience.taken(
            steps, value[:, :-1], advantage, self.norm.normalised(returns), shares, self.advantage_floor
        )
        found = {name: experience.pieces(entry, self.backward) for name, entry in whole.items()}
        for name in self.stores:
            assert batch.past is not None
            found[name] = experience.begun(steps[name], batch.past.stored[name][:, -1], self.backward)
        error = (returns - real[:, :-1]) * shares[1]
        return found, {
            "behaviour/return": (returns * shares[1]).mean(),
            "behaviour/value": (real[:, :-1] * shares[1]).mean(),
            "behaviour/value_error": error.abs().mean(),
            "behaviour/advantage_std": (advantage.square() * shares[0]).mean().sqrt(),
        }

    def parts(self, whole: Steps) -> Iterator[Steps]:
        """All pieces, `epochs` times; in a new order each time where they are parted into minibatches."""
        for _ in range(self.epochs):
            if self.minibatches == 1:
                yield whole
                continue
            count, device = len(whole["old"]), whole["old"].device
            for rows in draws.uniform((count,), device).argsort().chunk(self.minibatches):
                yield {name: entry[rows] for name, entry in whole.items()}

    def losses(self, part: Steps) -> tuple[Metrics, Metrics]:
        """The losses (0-d) of policy and critic on pieces, and what they were made of."""
        part = self.actor.read(part)
        policy, _ = self.actor(part, names.notes({name: part[name] for name in self.stores}))
        log_prob, entropy = policy.log_prob(part["action"]), policy.entropy()
        share, far = part["policy_share"], (log_prob - part["old"]).detach()
        surrogate = clipped_loss(log_prob, part["old"], part["advantage"], self.clip)
        error = clipped_value_loss(self.critic(part), part["value"], part["target"], clip=self.clip, huber=self.huber)
        losses = {
            "policy": (share * (surrogate - self.entropy * entropy)).mean(),
            "value": (part["critic_share"] * error).mean(),
        }
        measured = {
            "loss/policy": (share * surrogate).mean().detach(),
            "loss/value": losses["value"].detach(),
            "behaviour/action_entropy": (share * entropy).mean().detach(),
            "behaviour/policy_kl": (share * (far.expm1() - far)).mean(),
            "behaviour/clipped": (share * (far.expm1().abs() > self.clip)).mean(),
        }
        return losses, measured

    # ---- what it consists of

    def networks(self) -> list[Part]:
        return [(self.actor, "forward"), (self.critic, "forward")]

    def parameters_by_module(self) -> dict[str, int]:
        counts = {"actor": trainable(self.actor), "critic": trainable(self.critic)}
        return counts | {"total": sum(counts.values())}


def build(config: Config, observation_space: Any, action_spec: Any, team: Team) -> Mappo:
    """The learner of a config for one agent's spaces and its team; UserError for a space that cannot be read."""
    torch.manual_seed(config.seed)
    seen = describe(observation_space, multiple=StridedEncoder.multiple)
    with torch.device(config.device):
        actor, critic = (transformer if config.policy == "mat" else perceptrons)(config, seen, action_spec, team)
        norm = ValueNorm() if config.value_norm else Unscaled()
        sizes: dict[str, Any] = {"eps": 1e-5, "clip": NormClip(config.grad_clip)}
        if config.policy == "mat":  # values move the encoder too
            rules = {"mat": Adam([*actor.parameters(), *critic.parameters()], lr=config.lr, **sizes)}
        else:
            rules = {
                "actor": Adam(actor.parameters(), lr=config.lr, **sizes),
                "critic": Adam(critic.parameters(), lr=config.critic_lr, **sizes),
            }
        optimiser = Together(**rules)
    return Mappo(
        actor=actor,
        critic=critic,
        norm=norm,
        device=torch.device(config.device),
        optimiser=optimiser,
        seed=config.seed,
        precision=config.precision,
        agents=team.agents,
        batch=config.batch,
        length=config.length,
        # an estimate tries shorter rows than a run may have
        backward=math.gcd(config.transitions, config.backward) if config.actor == "gru" else 1,
        epochs=config.epochs,
        minibatches=config.minibatches,
        clip=config.clip,
        entropy=config.entropy,
        discount=config.discount,
        lam=config.lam,
        advantage_floor=config.advantage_floor,
        huber=config.huber,
        dead_values=config.dead_values,
    )


def perceptrons(config: Config, seen: Observations, spec: Any, team: Team) -> tuple[Actor, Critic]:
    """MAPPO's: each agent's policy by what it has seen, values by what the team has."""
    actor = Actor(
        Sight(seen, depth=config.depth),
        GRUMemory(config.units) if config.actor == "gru" else NoMemory(),
        agents=team.agents if config.identity else 0,
        units=config.units,
        layers=config.layers,
        discrete=spec.discrete,
        continuous=spec.continuous,
    )
    critic = Critic(
        Sight(seen, depth=config.depth),
        agents=team.agents,
        state=team.state,
        central=config.critic == "central",
        identity=config.identity,
        units=config.units,
        layers=config.layers,
    )
    return actor, critic


def transformer(config: Config, seen: Observations, spec: Any, team: Team) -> tuple[MATActor, MATCritic]:
    """MAT's: one encoder for both."""
    actor = MATActor(
        Sight(seen, depth=config.depth),
        agents=team.agents,
        identity=config.identity,
        width=config.units,
        blocks=config.blocks,
        heads=config.heads,
        random_order=config.order == "random",
        discrete=spec.discrete,
        continuous=spec.continuous,
    )
    return actor, MATCritic(actor)

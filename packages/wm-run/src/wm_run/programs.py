"""An agent -> its step in three parts: observe, policy, dream. Each is a function of tensors alone, noise among them.

`observed`, `chosen` and `dreamt` say what a part computes, for any world model; `programs` wraps them for an exporter, which
wants a module, tensors in one order, and no structure. Sizes: one row, A action, S x K stochastic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from wm_core import draws
from wm_core.agent import Agent
from wm_core.contracts import Behaviour
from wm_core.types import Carry, Latent, Start
from wm_core.world import WorldModel

from wm_run.noise import MODE, Wanted, handed_out, modes
from wm_run.ports import named, nested
from wm_run.standins import exportable

Shown = dict[str, Tensor]  # observations by their keys, (1, ...)
NEXT = "next."  # before the name of what the next call takes


def observed(
    world: WorldModel, carry: Carry, seen: Mapping[str, Tensor], action: Tensor, first: Tensor
) -> tuple[Carry, Start, Latent]:
    """Encoder and one step of the dynamics: seen (1, ...), the action (1, A) that led here, first (1,) bool -> the next
    carry, where a dream would begin, and the latent on which the policy acts."""
    steps = {key: value[:, None] for key, value in seen.items()} | {"action": action[:, None], "first": first[:, None]}
    trace = world.observe(carry, steps)
    start, latent = world.starts(trace, 1)
    return trace.carry, start, latent


def chosen(behaviour: Behaviour, latent: Latent) -> Tensor:
    """A sample of the policy (1, A)."""
    return behaviour.policy(latent).sample()


def dreamt(world: WorldModel, start: Start, action: Tensor) -> tuple[Start, Latent, dict[str, Tensor]]:
    """One imagined step with action (1, A): the next start, its latent, and what the heads say there: reward (1,), cont
    (1,) with the discount inside, and every observation as the decoder has it."""
    after, latent = world.imagine(start, action)
    predictions = {name: world.heads[name](latent).mode() for name in ("reward", "cont")}
    return after, latent, predictions | {f"observation.{key}": one.mode() for key, one in world.decoder(latent).items()}


@dataclass(frozen=True)
class Program:
    """One part for an exporter: the module takes the tensors of `inputs` in their order, and gives those of `outputs`.

    inputs: by name, with values for which it can be called. noise: of which of them are draws, and of which kind.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    noise: Mapping[str, str]


class Flat(nn.Module):
    """A function of structured values and noise, as one of tensors: `run(*values)` gives a dict of tensors.

    parts: the modules that `run` looks at, for the exporter. like: the values, whose structure the tensors take.
    """

    def __init__(self, run: Callable[..., dict[str, Tensor]], like: tuple[Any, ...], **parts: Any) -> None:
        super().__init__()
        self.run, self.like = run, like
        self.parts = nn.ModuleDict(parts)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors of every value, then the noise."""
        given = iter(tensors)
        values = [nested(one, given) for one in self.like]
        with draws.drawing(handed_out(given)), torch.no_grad():
            return tuple(self.run(*values).values())


def programs(agent: Agent, seen: Shown, actions: int) -> list[Program]:
    """Observe, policy and dream of an agent with a single row, its stand-ins in their places.

    seen: an observation (1, ...) by its keys. actions: A. The agent is on a CPU.
    """
    world, behaviour = exportable(agent.world), exportable(as_module(agent.behaviour))
    with torch.no_grad():
        carry = _copied(world.dynamics.initial(1))
        action, first = torch.zeros(1, actions), torch.ones(1, dtype=torch.bool)
        with draws.drawing(modes([])):
            _, start, latent = observed(world, carry, seen, action, first)
    start, state = _copied(start), _copied(said(latent))

    def observe(carry: Carry, seen: Shown, action: Tensor, first: Tensor) -> dict[str, Tensor]:
        after, begun, posterior = observed(world, carry, seen, action, first)
        return named(f"{NEXT}carry", after) | named("latent", said(posterior)) | named("start", begun)

    def policy(latent: Shown) -> dict[str, Tensor]:
        return {"action": chosen(behaviour, Latent(**latent))}

    def dream(start: Start, action: Tensor) -> dict[str, Tensor]:
        after, prior, heads = dreamt(world, start, action)
        return named(f"{NEXT}start", after) | named("latent", said(prior)) | heads

    def program(name: str, run: Callable[..., dict[str, Tensor]], values: dict[str, Any], **parts: Any) -> Program:
        asked: list[Wanted] = []
        with draws.drawing(modes(asked)), torch.no_grad():
            outputs = tuple(run(*values.values()))
        noise = {f"noise.{at}": kind for at, (kind, _) in enumerate(asked)}
        inputs = {key: value for part, tree in values.items() for key, value in named(part, tree).items()}
        inputs |= {f"noise.{at}": torch.full(shape, MODE[kind]) for at, (kind, shape) in enumerate(asked)}
        return Program(name, Flat(run, tuple(values.values()), **parts).eval(), inputs, outputs, noise)

    values = {"carry": carry, "observation": seen, "action": action, "first": first}
    return [
        program("observe", observe, values, encoder=world.encoder, dynamics=world.dynamics),
        program("policy", policy, {"latent": state}, behaviour=behaviour),
        program(
            "dream",
            dream,
            {"start": start, "action": action},
            dynamics=world.dynamics,
            decoder=world.decoder,
            heads=world.heads,
        ),
    ]


def said(latent: Latent) -> Shown:
    """The features of a latent, by name."""
    return {one.name: value for one in fields(latent) if (value := getattr(latent, one.name)) is not None}


def as_module(behaviour: Behaviour) -> Any:
    """The behaviour, which with all of ours is a module of the networks it names."""
    if not isinstance(behaviour, nn.Module):
        raise TypeError(f"{type(behaviour).__name__} is no module, whose weights an exporter could find")
    return behaviour


def _copied(tree: Any) -> Any:
    """Tensors of their own: an exporter refuses two inputs that share memory."""
    tensors: Iterator[Tensor] = (value.detach().clone() for value in named("", tree).values())
    return nested(tree, tensors)

"""Every network is compiled where it is called, and the numbers stay. The compiler here counts and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from wm_core import draws
from wm_core.actor_critic import ActorCritic
from wm_core.agent import Agent
from wm_core.distributions import Bernoulli
from wm_core.fast.compiled import compile_parts
from wm_core.heads import Head, PolicyHead
from wm_core.kl import BalancedKL
from wm_core.optim import LaProp, averages
from wm_core.parallel import GRUBackbone, Parallel
from wm_core.rssm import RSSM
from wm_core.testing import assert_same
from wm_core.twohot import TwoHot
from wm_core.types import Dream, Latent
from wm_core.world import WorldModel

SIZES: dict[str, Any] = {"deter": 8, "stoch": (2, 3), "embed": 4, "action": 3}


class Encoder(nn.Module):
    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, steps: Any) -> dict[str, torch.Tensor]:
        return {"obs": self.layer(steps["vector"])}


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(14, 5)

    def forward(self, latent: Latent) -> dict[str, Any]:
        return {"vector": self.layer(latent.read("deter", "stoch"))}


class Acting(Agent):
    """It acts, and nothing here learns."""

    def learn(self, replay: Any) -> Any:
        raise AssertionError("nothing learns here")

    def update(self, *batches: Any) -> Any:
        raise AssertionError("nothing learns here")


def make(kind: str) -> Agent:
    torch.manual_seed(0)
    dynamics: Any = RSSM(hidden=4, blocks=2, **SIZES) if kind == "rssm" else Parallel(GRUBackbone(8), hidden=4, **SIZES)
    common: dict[str, Any] = {"widths": dynamics.widths, "units": 4, "layers": 1}
    heads: Any = {"reward": Head(TwoHot, 11, **common), "cont": Head(Bernoulli, 1, **common)}
    world = WorldModel(encoder=Encoder(), dynamics=dynamics, decoder=Decoder(), heads=heads, kl=BalancedKL())
    policy = PolicyHead(discrete=(3,), continuous=0, **common)
    behaviour = ActorCritic(policy=policy, critic=Head(TwoHot, 11, **common))
    return Acting(world=world, behaviour=behaviour, optimiser=LaProp([*world.parameters()], lr=1e-3))


def steps() -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    first = torch.zeros(2, 3, dtype=torch.bool)
    numbers = {"vector": torch.randn(2, 3, 5, generator=source), "action": torch.randn(2, 3, 3, generator=source)}
    return numbers | {"first": first}


def parts(agent: Agent) -> dict[str, Callable[[], Any]]:
    """What an update calls, one by one, as it calls it."""
    world, behaviour = agent.world, agent.behaviour
    with draws.drawing(draws.Generator(1)):
        embed = world.encoder(steps())
        trace = world.dynamics.observe(world.dynamics.initial(2), embed, steps()["action"], steps()["first"])
    start, latent = world.starts(trace, 3)
    latents = Latent(trace.latent.deter.detach(), trace.latent.stoch.detach())
    dream = Dream(latents, steps()["action"][:, :2], torch.ones(2, 3), torch.ones(2, 3))

    def drawn(call: Callable[[], Any]) -> Any:
        with draws.drawing(draws.Generator(2)):
            return call()

    again = replace(trace.latent)  # what was joined before is not joined again
    return {
        "encoder": lambda: world.encoder(steps()),
        "observe": lambda: drawn(
            lambda: world.dynamics.observe(world.dynamics.initial(2), embed, steps()["action"], steps()["first"]).prior
        ),
        "imagine": lambda: drawn(lambda: world.dynamics.imagine(start, torch.ones(6, 3))[1].deter),
        "decoder": lambda: world.decoder(again),
        "reward": lambda: world.heads["reward"](again).logits,
        "cont": lambda: world.heads["cont"](again).logits,
        "policy": lambda: behaviour.policy(latent).entropy(),
        "losses": lambda: averages(behaviour.losses(dream)),  # actor, critic and slow critic
    }


@pytest.mark.parametrize(("kind", "only"), [("rssm", ()), ("parallel", ("observe", "imagine"))])
def test_every_network_is_compiled_where_it_is_called(
    kind: str, only: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uniform", "normal", "exponential"):
        monkeypatch.setattr(draws, name, getattr(draws, name))  # put back after
    agent, plain, graphs = make(kind), make(kind), Counter[str]()
    calls = {name: call for name, call in parts(agent).items() if not only or name in only}
    expected = {name: call() for name, call in parts(plain).items() if name in calls}
    names, now = agent.state_dict().keys(), "none"

    def count(graph: Any, inputs: Any) -> Any:
        graphs[now] += 1
        return graph.forward

    compile_parts(agent.networks(), count)
    for now, call in calls.items():
        assert_same(call(), expected[now])
    assert set(graphs) == set(calls), f"not compiled: {set(calls) - set(graphs)}"
    assert only or graphs["losses"] >= 3
    before = graphs.copy()
    for call in calls.values():
        call()
    assert graphs == before  # nothing is compiled twice
    assert agent.state_dict().keys() == names

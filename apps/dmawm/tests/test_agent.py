"""What DMAWM claims of its agents: each one's state is its own, and only prior, heads and critic know of the others."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import dmawm.agent
import pytest
import torch
from dmawm.agent import Dmawm
from dmawm.cli import APP
from torch import Tensor
from wm_core import draws
from wm_core.types import Batch, Trace
from wm_core.world import WorldModel
from wm_marl import Interleaved, agents_of
from wm_run.configs import resolve

Given = SimpleNamespace
AGENTS, ACTIONS = 3, 5


def traced(agent: Dmawm, batch: Batch) -> Trace:
    steps = agent.rows(batch.steps)
    with draws.drawing(draws.Fixed()), torch.no_grad():
        return agent.world.observe(agent.world.prefill(None, len(steps["first"])), steps)


def moved(before: Tensor, after: Tensor) -> list[bool]:
    """Of rows (B*N, ...), which agents' differ anywhere."""
    apart = agents_of((before - after).abs(), AGENTS).flatten(3).amax((0, 1, 3)) > 1e-7
    return apart.tolist()


@pytest.mark.parametrize(
    ("predictor", "coupled"), [("transformer", [True, True, True]), ("alone", [False, True, False])]
)
def test_an_observation_moves_its_agents_posterior_and_the_priors_of_the_team(
    given: Given, predictor: str, coupled: list[bool]
) -> None:
    agent, batch, other = given.small(predictor=predictor), given.teams(), given.teams()
    other.steps["vector"][:, :, 1] += 1.0
    one, two = traced(agent, batch), traced(agent, other)
    assert moved(one.post, two.post) == [False, True, False]
    assert moved(one.latent.deter, two.latent.deter) == [False, True, False]
    assert moved(one.prior, two.prior) == coupled


def test_no_team_hears_of_another(given: Given, agent: Dmawm) -> None:
    batch, other = given.teams(), given.teams()
    for name in ("vector", "action"):
        other.steps[name][0] += 1.0
    one, two = (traced(agent, each) for each in (batch, other))
    rows = AGENTS
    assert torch.equal(one.prior[rows:], two.prior[rows:]) and not torch.equal(one.prior[:rows], two.prior[:rows])
    assert torch.equal(one.latent.deter[rows:], two.latent.deter[rows:])


def test_acting_is_decentralised(given: Given, agent: Dmawm) -> None:
    """What one agent sees changes its own state and policy, and nobody else's."""
    agent.eval()
    batch, other = given.teams(length=1), given.teams(length=1)
    other.steps["vector"][:, :, 2] += 3.0

    def acted(steps: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with draws.drawing(draws.Fixed()):
            agent.source = draws.Generator(0)
            carry, action, notes = agent.choose(agent.initial(2), steps, mode=True)
            latent = agent.world.latest(agent.world.observe(agent.initial(2), agent.rows(steps)))
        assert action.shape == (2, AGENTS, ACTIONS) and not notes
        assert (action.bool() <= steps["action_mask"][:, 0]).all()
        return carry["stoch"].unflatten(0, (2, -1)), agent.behaviour.policy(latent).logits.unflatten(0, (2, -1))

    (state, logits), (moved_state, moved_logits) = acted(batch.steps), acted(other.steps)
    assert torch.equal(state[:, :2], moved_state[:, :2]) and torch.equal(logits[:, :2], moved_logits[:, :2])
    assert not torch.equal(logits[:, 2], moved_logits[:, 2])


def test_alone_it_is_an_rssm_whose_prior_is_the_predictor_on_one_token(given: Given) -> None:
    agent, batch = given.small(agents=1), given.teams(agents=1)
    steps = agent.rows(batch.steps)
    assert isinstance(agent.world.dynamics, Interleaved)
    plain = WorldModel(
        encoder=agent.world.encoder,
        dynamics=agent.world.dynamics.dynamics,
        decoder=agent.world.decoder,
        heads=dict(agent.world.heads.items()),  # type: ignore[arg-type]
        kl=agent.world.kl,
        discount=agent.world.discount,
    )
    found = []
    for world in (agent.world, plain):
        with draws.drawing(draws.Generator(0)):
            losses, trace = world.losses(world.prefill(None, 2), steps)
            dream = world.dream(world.starts(trace, 3), agent.behaviour.policy, 4)
        found.append([*losses.values(), dream.latent.stoch, dream.action, dream.reward])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_who_communicates_is_not_decentralised(given: Given) -> None:
    """One agent's observation moves everybody's state a step later, and its own prior alone at once."""
    agent, batch, other = given.small(cell="communicating", predictor="alone"), given.teams(), given.teams()
    other.steps["vector"][:, 0, 1] += 3.0
    for one in (batch, other):
        one.steps["reset"][:, 1:] = False
    one, two = traced(agent, batch), traced(agent, other)
    assert moved(one.latent.deter[:, :1], two.latent.deter[:, :1]) == [False, False, False]
    assert moved(one.latent.deter[:, 1:], two.latent.deter[:, 1:]) == [True, True, True]


def test_a_dream_couples_agents_of_one_moment_alone(given: Given, agent: Dmawm) -> None:
    """The prior after one imagined step moves for the team of the agent whose start was changed, and for nobody else."""
    trace = traced(agent, given.teams())
    with draws.drawing(draws.Fixed()), torch.no_grad():
        start, _ = agent.world.starts(trace, 4)
        other = {name: value.clone() for name, value in start.items()}
        other["deter"][7] += 1.0  # agent 1 of the third moment
        priors = []
        for one in (start, other):
            after, _ = agent.world.imagine(one, torch.zeros(len(one["deter"]), ACTIONS))
            priors.append(agent.world.dynamics.prior_logits(after["deter"]))
    apart = (priors[0] - priors[1]).abs().flatten(1).amax(1) > 1e-7
    assert apart.nonzero().flatten().tolist() == [6, 7, 8]


def test_without_identities_agents_that_change_places_change_nothing_else(given: Given) -> None:
    agent, batch = given.small(identity=False), given.teams()
    order = [2, 0, 1]
    other = given.teams()
    for name in ("vector", "action", "reward", "alive", "action_mask"):
        other.steps[name] = batch.steps[name][:, :, order]
    one, two = (agents_of(traced(agent, each).prior, AGENTS) for each in (batch, other))
    assert torch.allclose(one[:, :, order], two, atol=1e-6)
    named = given.small()
    one, two = (agents_of(traced(named, each).prior, AGENTS) for each in (batch, other))
    assert not torch.allclose(one[:, :, order], two, atol=1e-6)


def test_nothing_of_the_behaviour_reaches_the_world_model(given: Given, agent: Dmawm) -> None:
    """One update with and without PPO leaves the same world model."""
    twin = given.small(model_first=10)
    agent.update(given.teams())
    twin.update_model(given.teams())
    for name, value in agent.world.state_dict().items():
        assert torch.equal(value, twin.world.state_dict()[name]), name
    assert any(
        not torch.equal(a, b) for a, b in zip(agent.behaviour.parameters(), twin.behaviour.parameters(), strict=True)
    )


class Rows:
    """A replay whose every batch is another one."""

    def __init__(self, given: Given) -> None:
        self.given, self.sampled = given, 0

    def sample(self, batch: int, length: int, past: int = 0) -> Batch:
        self.sampled += 1
        found: Batch = self.given.teams(batch, length, seed=self.sampled - 1)
        return found


def test_the_model_learns_alone_at_first(given: Given) -> None:
    agent = given.small(model_first=2)
    before = [p.clone() for p in agent.behaviour.parameters()]
    told = [agent.learn(Rows(given)) for _ in range(2)]  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(before, agent.behaviour.parameters(), strict=True))
    assert "loss/policy" not in told[-1]
    assert "loss/policy" in agent.learn(Rows(given)) and int(agent.clock.updates) == 3  # type: ignore[arg-type]
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.behaviour.parameters(), strict=True))


def test_the_model_learns_so_many_steps_an_update_and_the_policy_from_the_last_rows(given: Given) -> None:
    agent, twin = given.small(model_updates=3), given.small()
    agent.learn(Rows(given))  # type: ignore[arg-type]
    rows = Rows(given)
    for _ in range(2):
        twin.update_model(twin.to_device(rows.sample(twin.batch, twin.length)))
    twin.update(twin.to_device(rows.sample(twin.batch, twin.length)))
    apart = [name for name, value in agent.state_dict().items() if not torch.equal(value, twin.state_dict()[name])]
    assert not apart and int(agent.clock.updates) == 1


def test_alone_the_model_takes_as_many_steps_an_update(given: Given) -> None:
    agent, rows = given.small(model_updates=3, model_first=2), Rows(given)
    for _ in range(2):
        assert "loss/policy" not in agent.learn(rows)  # type: ignore[arg-type]
    twin, others = given.small(), Rows(given)
    for _ in range(6):
        twin.update_model(twin.to_device(others.sample(twin.batch, twin.length)))
    apart = [
        name
        for name, value in agent.world.state_dict().items()
        if not torch.equal(value, twin.world.state_dict()[name])
    ]
    assert not apart
    assert rows.sampled == 6 and "loss/policy" in agent.learn(rows)  # type: ignore[arg-type]
    assert int(agent.clock.updates) == 3


def test_a_train_ratio_counts_every_step_of_the_model(given: Given) -> None:
    config = resolve(APP, "tiny")
    assert replace(config, model_updates=3).replayed == 3 * config.replayed == 3 * config.batch * config.length


def test_the_dead_count_once_and_no_more_where_there_is_no_absorbing_state(given: Given) -> None:
    agent = given.small(absorbing=0, absent="muted")
    batch = given.teams(1, 5)
    alive = torch.tensor([True, True, False, False, True])
    batch.steps["alive"][0, :, 0] = alive
    batch.steps["reset"][:] = batch.steps["first"][:] = batch.steps["last"][:] = batch.steps["terminal"][:] = False
    batch.steps["reset"][0, 4] = batch.steps["first"][0, 4] = True
    steps = agent.relabel(agent.rows(batch.steps))
    assert steps["weight"][0].tolist() == [1, 1, 1, 0, 1] and steps["terminal"][0].tolist() == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_health_is_told_of_each_row_where_its_dreams_began(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dreams come moment by moment; whoever measures them row by row gets them back in the order of the rows."""
    agent, seen, traces = given.small(dream_last=3), list[Any](), list[Trace]()
    real, starts = dmawm.agent.health.dreamed, agent.world.starts
    monkeypatch.setattr(dmawm.agent.health, "dreamed", lambda dream, *rest: seen.append(dream) or real(dream, *rest))
    monkeypatch.setattr(agent.world, "starts", lambda trace, last: traces.append(trace) or starts(trace, last))
    agent.update(given.teams())
    begun = seen[0].latent.deter[:, 0].unflatten(0, (-1, 3))
    assert torch.equal(begun, traces[0].latent.deter[:, -3:])


def test_the_model_learns_from_relabelled_steps(given: Given) -> None:
    agent, batch = given.small(absorbing=2), given.teams()
    learned, told = agent.update_model(batch)[2], agent.relabel(agent.rows(batch.steps))
    assert learned.keys() == told.keys() and all(torch.equal(learned[name], told[name]) for name in told)
    assert not torch.equal(told["vector"], agent.rows(batch.steps)["vector"])  # there is something to relabel


@pytest.mark.parametrize(
    "numbers", [{"cell": "gru"}, {"cell": "communicating"}, {"heads_input": "hz"}, {"value_loss": "squared"}, {"masks": "sample"}, {"chunks": 2},
                {"critic": "alone"}, {"team_heads": "alone"}, {"absent": "team"}, {"dream_last": 3}],
)  # fmt: skip
def test_every_switch_learns(given: Given, numbers: dict[str, Any]) -> None:
    agent = given.small(critic_lr=1e-2, **numbers)
    metrics, notes = agent.update(given.teams())
    assert not notes and all(torch.isfinite(value).all() for value in metrics.values())
    weights = {name: value.clone() for name, value in agent.named_parameters()}
    agent.update(given.teams(seed=1))
    still = [name for name, value in agent.named_parameters() if torch.equal(value, weights[name])]
    assert not still

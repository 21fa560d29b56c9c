"""The Multi-Agent Transformer learned by PPO: on dreams, in a world model, by one optimiser, and what only it can learn."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 - torch documents it, and has no other door
from wm_core import RSSM, Agent, Clock, Dream, Latent, OptimisingBehaviour, WorldModel, draws
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.heads import PolicyHead
from wm_core.kl import BalancedKL
from wm_core.observations import Observations
from wm_core.optim import Adam, Together
from wm_core.testing import assert_same
from wm_marl import PPO, AgentTransformer, Interleaved, MATPolicy, Squared, mat_critic, plain, team_critic, team_heads

pytestmark = pytest.mark.usefixtures("float64")
B, K, N, H, D, S, C, A = 2, 3, 3, 4, 8, 2, 3, 5
TEAMS = B * K
M = TEAMS * N
WIDTHS = {"deter": D, "stoch": S * C}


def behaviour(order: Any = "fixed", agents: int = N, width: int = 16, value: Any = Squared, **numbers: Any) -> PPO:
    """MAT with its own critic, weights as large as if it had learned something."""
    torch.manual_seed(0)
    policy = MATPolicy(discrete=(A,), continuous=0, widths=WIDTHS, agents=agents, width=width, heads=2, order=order)
    critic = mat_critic(policy, value=value)
    with torch.no_grad():
        for weight in [*policy.parameters(), *critic.parameters()]:
            weight.add_(0.2 * torch.randn_like(weight))
    numbers = {"actor_lr": 1e-2, "critic_lr": 1e-2, "agents": agents, "together": True} | numbers
    return PPO(policy=policy, critic=critic, **numbers)


def dreamed(ppo: PPO, mask: bool = True) -> Dream:
    """A dream whose actions are the policy's own; some rows end on their way."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    latent = Latent(random(M, H + 1, D) * 4 - 2, torch.eye(C)[(random(M, H + 1, S) * C).long()])
    allowed = (random(M, H + 1, A) < 0.6) | (torch.arange(A) == 2) if mask else None
    with draws.drawing(draws.Generator(0)):
        masks = None if allowed is None else allowed[:, :-1]
        action = ppo.policy(before(latent), masks).sample().double()
    return Dream(latent, action, random(M, H + 1) * 2 - 1, random(M, H + 1) ** 0.2 * 0.99, allowed)


def before(latent: Latent) -> Latent:
    return Latent(latent.deter[:, :-1], latent.stoch[:, :-1])


@pytest.mark.parametrize("mask", [False, True])
def test_five_epochs_are_one_adam_of_torch(mask: bool) -> None:
    """Losses by `plain.ppo`, actor and critic asked apart, one Adam over all weights, one clip of one norm."""
    mine, theirs = behaviour(bound=0.5), behaviour(bound=0.5)
    dream = dreamed(mine, mask)
    params = [*theirs.parameters()]
    first = [param.clone() for param in params]
    optimiser = torch.optim.Adam(params, lr=1e-2, eps=1e-5)
    allowed = None if dream.mask is None else dream.mask[:, :-1]
    with torch.no_grad():
        old, value = theirs.policy(before(dream.latent), allowed).log_prob(dream.action), theirs.critic(dream.latent)
    for _ in range(5):
        told = theirs.policy(before(dream.latent), allowed)
        now = told.log_prob(dream.action)
        policy, targets = plain.ppo(now, old, told.entropy(), value.mode(), dream.reward, dream.cont, theirs)
        weight = dream.cont[:, :-1].cumprod(1)
        critic = (theirs.critic(before(dream.latent)).loss(targets) * weight).sum() / weight.sum()
        optimiser.zero_grad()
        (policy + critic).backward()
        assert nn.utils.clip_grad_norm_(params, 0.5) > 0.5
        optimiser.step()
    assert list(mine.rules) == ["behaviour"]
    metrics = mine.optimise(dream)
    assert {"opt/grad_norm/behaviour", "opt/lr/behaviour"} <= metrics.keys()
    for start, one, other in zip(first, mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
        assert (one != start).any()


@pytest.mark.parametrize("order", ["fixed", "random"])
def test_at_the_first_epoch_the_ratio_is_one(order: str) -> None:
    """To the bit; and what was noted when it was drawn, one agent after the other, is what it is then."""
    ppo = behaviour(order, epochs=1)
    with draws.drawing(draws.Generator(4)):
        ppo.follow()
    dream = dreamed(ppo)
    assert dream.mask is not None
    metrics = ppo.optimise(dream)
    assert metrics["behaviour/policy_kl"].item() == 0.0 and metrics["behaviour/clipped"].item() == 0.0
    assert behaviour(order, epochs=5).optimise(dream)["behaviour/policy_kl"].item() > 1e-4


@pytest.mark.parametrize("together", [False, True])
def test_gradients_reach_every_weight(together: bool) -> None:
    ppo = behaviour(together=together, entropy=0.01)
    parts, _ = ppo.prepare(dreamed(ppo))
    found, _ = ppo.gradients(parts, [])
    assert {*found} == ({"behaviour"} if together else {"actor", "critic"})
    names = {id(param): name for name, param in ppo.named_parameters()}
    reached = set()
    for name, rule in ppo.rules.items():
        for param, grad in zip(rule.params, found[name], strict=True):
            assert grad.abs().sum() > 0, names[id(param)]
            reached.add(id(param))
    assert reached == set(names)


def test_chunks_have_the_gradient_of_the_whole() -> None:
    found = []
    for chunks in (1, 2, 4, 100):
        ppo = behaviour(chunks=chunks)
        found.append(ppo.gradients(ppo.prepare(dreamed(behaviour()))[0], [])[0]["behaviour"])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


def test_the_encoder_runs_once_an_epoch_for_both() -> None:
    ppo = behaviour(epochs=3)
    dream, calls = dreamed(ppo), []
    assert isinstance(ppo.actor, MATPolicy)
    ppo.actor.encoder.register_forward_hook(lambda *_: calls.append(1))
    ppo.optimise(dream)
    assert len(calls) == 1 + 3  # the values before the first epoch, and each of them


def test_apart_is_two_adams() -> None:
    """Without `together` the policy's moves the encoder, by both losses, and the critic's its head."""
    ppo = behaviour(together=False)
    assert [len(rule.params) for rule in ppo.rules.values()] == [
        len([*ppo.actor.parameters()]),
        len([*ppo.critic.parameters()]),
    ]
    dream = dreamed(ppo)
    one, two = ppo.gradients(ppo.prepare(dream)[0], [])[0], behaviour().gradients(ppo.prepare(dream)[0], [])[0]
    assert_same([*one["actor"], *one["critic"]], two["behaviour"])


def test_together_is_for_any_policy() -> None:
    """A PolicyHead beside a critic of the team, the decentralised alternative, by one Adam: the gradients of two."""
    found: list[Any] = []
    for together in (False, True):
        torch.manual_seed(0)
        policy = PolicyHead(discrete=(A,), continuous=0, widths=WIDTHS, units=16, layers=1)
        critic = team_critic(AgentTransformer(D, agents=N, width=16, layers=1, heads=2, hidden=16), units=16, layers=1)
        ppo = PPO(policy=policy, critic=critic, agents=N, together=together)
        found.append(ppo.gradients(ppo.prepare(dreamed(behaviour()))[0], [])[0])
    assert_same(found[0]["actor"] + found[0]["critic"], found[1]["behaviour"])


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"critic_lr": 2e-2}, "give critic_lr as actor_lr, 0.01, not 0.02"),
        ({"slow_rate": 0.02}, "leave slow_rate out"),
        ({"agents": 2}, "the policy is of 3 agents and PPO of 2"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(numbers: dict[str, Any], sentence: str) -> None:
    made = behaviour()
    given: dict[str, Any] = {"agents": N, "actor_lr": 1e-2, "critic_lr": 1e-2, "together": True}
    with pytest.raises(ValueError, match=sentence):
        PPO(policy=made.actor, critic=made.critic, **(given | numbers))
    with pytest.raises(ValueError, match="another policy's encoder"):
        PPO(policy=made.actor, critic=behaviour().critic, agents=N)


class NoHost(TorchDispatchMode):
    """Raises where a value is read on the host, or memory is sized by one: what a recorded graph cannot repeat."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(word in str(func) for word in ("_local_scalar_dense", "nonzero", "masked_select")), func
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_on_the_host_and_memory_stays() -> None:
    """In drawing, learning, and another order."""
    ppo = behaviour("random", chunks=2)
    dream = dreamed(ppo)
    assert isinstance(ppo, OptimisingBehaviour)
    ppo.optimise(dream)
    changing = [*ppo.parameters(), *ppo.buffers(), *Together(**ppo.rules).tensors()]
    where = [tensor.data_ptr() for tensor in changing]
    with NoHost():
        ppo.policy(dream.latent, dream.mask).sample()
        ppo.optimise(dream)
        ppo.follow()
    assert where == [tensor.data_ptr() for tensor in changing]


def test_what_is_saved_is_all_there_is() -> None:
    """Weights, order, optimiser: another behaviour that takes them goes on alike; so does a copy."""
    ppo, other = behaviour("random"), behaviour("random")
    dream = dreamed(ppo)
    with draws.drawing(draws.Generator(7)):
        ppo.optimise(dream)
        ppo.follow()
    assert isinstance(ppo.actor, MATPolicy) and ppo.actor.order is not None
    assert ppo.actor.order.order.tolist() != [*range(N)]  # an update is over, the next order is drawn
    other.load_state_dict(ppo.state_dict())
    state = Together(**ppo.rules).state_dict(dict(ppo.named_parameters()))
    Together(**other.rules).load_state_dict(copy.deepcopy(state), dict(other.named_parameters()))
    copied = copy.deepcopy(ppo)
    assert copied.critic.policy is copied.actor is not ppo.actor
    expected = ppo.optimise(dream)
    assert_same(other.optimise(dream), expected)
    assert_same(other.state_dict(), ppo.state_dict())


def test_half_precision_has_a_ratio_of_one_and_moves_all() -> None:
    torch.set_default_dtype(torch.float32)
    ppo = behaviour(epochs=1)
    dream = dreamed(behaviour())
    dream = replace(dream, action=dream.action.float())
    with torch.autocast("cpu", torch.bfloat16):
        sampled = ppo.policy(dream.latent, dream.mask).sample()
        metrics = ppo.optimise(dream)
    assert dream.mask is not None and not (sampled.bool() & ~dream.mask).any()
    assert metrics["behaviour/policy_kl"].item() == 0.0
    assert all(torch.isfinite(one).all() for one in ppo.parameters())


# ---- in a world model


class Playing(Agent):
    """One that acts."""

    def learn(self, replay: Any) -> Any: ...

    def update(self, *batches: Any) -> Any: ...


def test_it_acts_and_dreams_where_a_policy_head_does() -> None:
    """Rows (n*N, ...) of `choose`, (B*T*N, ...) of a dream, both within their masks, learned from without more ado."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    seen = Observations(vectors={"vector": 6})
    encoder = MultiEncoder(seen, units=16, depth=4)
    rssm = RSSM(deter=16, stoch=(S, C), embed=encoder.width, action=A, hidden=8, blocks=2)
    mixer = AgentTransformer(16, agents=N, width=16, layers=1, heads=2, hidden=16)
    world = WorldModel(
        encoder=encoder,
        dynamics=Interleaved(rssm, N),
        decoder=MultiDecoder(seen, widths=rssm.widths, units=16, depth=4, blocks=2),
        heads=team_heads(mixer, A, units=16, layers=1),
        kl=BalancedKL(1.0),
    )
    policy = MATPolicy(discrete=(A,), continuous=0, widths=rssm.widths, agents=N, width=16, order="random")
    ppo = PPO(policy=policy, critic=mat_critic(policy), agents=N, together=True, epochs=2)
    optimiser = Together(model=Adam(world.parameters(), lr=1e-4), **ppo.rules)
    agent = Playing(world=world, behaviour=ppo, optimiser=optimiser)
    flags = torch.zeros(B * N, K, dtype=torch.bool)
    steps = {"vector": torch.randn(B * N, K, 6), "action": torch.zeros(B * N, K, A), "reward": torch.randn(B * N, K)}
    steps |= dict.fromkeys(("first", "last", "terminal", "reset"), flags) | {"weight": torch.ones(B * N, K)}
    steps |= {"action_mask": torch.rand(B * N, K, A) < 0.5}
    now = {name: value[:, :1] for name, value in steps.items()}
    for mode in (False, True):
        for temperature in (1.0, 0.5):
            _, action, _ = agent.choose(agent.initial(B * N), now, mode, temperature)
            assert action.shape == (B * N, A)
            forbidden = ~now["action_mask"][:, 0] & now["action_mask"][:, 0].any(-1, keepdim=True)
            assert not (action.bool() & forbidden).any()
    _, trace = world.losses(world.prefill(None, B * N), steps, Clock(torch.device("cpu")))
    dream = world.dream(world.starts(trace), ppo.policy, H)
    assert dream.mask is not None and dream.action.shape == (M, H, A)
    assert not (dream.action.bool() & ~dream.mask[:, :-1]).any()
    held = [param.clone() for param in world.parameters()]
    assert all(torch.isfinite(value) for value in ppo.optimise(dream).values())
    assert_same(held, [param.clone() for param in world.parameters()])
    assert agent.parameters_by_module()["actor"] == sum(p.numel() for p in policy.parameters())
    state = agent.state()
    agent.load_state(state)


# ---- what only it can learn


def played(policy: Any, critic: Any, updates: int, teams: int = 64, **numbers: Any) -> tuple[float, PPO]:
    """How often two agents that see the same choose different ones of two actions, after PPO on games of one step."""
    torch.manual_seed(0)
    ppo = PPO(policy=policy, critic=critic, agents=2, actor_lr=5e-3, critic_lr=5e-3, epochs=4, **numbers)
    rows = 2 * teams

    def game() -> Dream:
        seen = torch.randn(teams, 1, 4).repeat_interleave(2, 0)  # the same for both
        latent = Latent(seen.expand(-1, 2, -1), torch.zeros(rows, 2, 1, 1))
        action = ppo.policy(Latent(seen, latent.stoch[:, :1])).sample()  # (rows, 1, 2)
        differ = (action[::2, 0, 0] != action[1::2, 0, 0]).float().repeat_interleave(2, 0)
        zero = torch.zeros(rows)
        return Dream(latent, action, torch.stack([zero, differ], 1), torch.stack([zero + 1, zero], 1))

    with draws.drawing(draws.Generator(0)):
        for _ in range(updates):
            ppo.optimise(game())
            ppo.follow()
        return float(torch.stack([game().reward[:, 1].mean() for _ in range(40)]).mean()), ppo


@pytest.mark.parametrize("order", ["fixed", "random"])
def test_a_team_learns_to_differ_and_like_policies_do_not(order: Any) -> None:
    """Both see the same, and have the same weights: only who hears what the other chose can choose another. Alone, at best
    half of the games are won. After 25 updates MAT won 0.993 to 0.995 of them (the uniform's share of 1% loses the rest),
    a policy of each agent alone 0.488 to 0.498: seeds 0 to 4."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    widths, reads = {"deter": 4}, ("deter",)
    mat = MATPolicy(discrete=(2,), continuous=0, widths=widths, agents=2, width=16, reads=reads, order=order)
    won, _ = played(mat, mat_critic(mat), 25, together=True)
    assert won > 0.95
    head = PolicyHead(discrete=(2,), continuous=0, widths=widths, units=16, layers=1, reads=reads)
    mixer = AgentTransformer(4, agents=2, width=16, layers=1, heads=1, hidden=16)
    alone, _ = played(head, team_critic(mixer, units=16, layers=1), 25)
    assert alone < 0.56

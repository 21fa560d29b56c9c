"""PPO in a dream: its laws, and its plain lines in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 - torch documents it, and has no other door
from wm_core import Dream, Latent, OptimisingBehaviour, draws
from wm_core.heads import PolicyHead
from wm_core.optim import Together
from wm_core.testing import assert_same
from wm_marl import PPO, AgentTransformer, clipped_loss, plain, standardised, team_critic
from wm_marl.critic import Squared

pytestmark = pytest.mark.usefixtures("float64")
B, K, N, H, D, S, C, A = 2, 3, 2, 4, 8, 2, 3, 5
M = B * K * N
WIDTHS = {"deter": D, "stoch": S * C}


def behaviour(value: Any = None, unimix: float = 0.01, **numbers: Any) -> PPO:
    torch.manual_seed(0)
    policy = PolicyHead(discrete=(A,), continuous=0, widths=WIDTHS, units=16, layers=1, outscale=1.0, unimix=unimix)
    mixer = AgentTransformer(D, agents=N, width=16, layers=1, heads=2, hidden=16)
    critic = team_critic(mixer, units=16, layers=1, **({"value": value} if value else {}))
    with torch.no_grad():  # of the two-hot's bins those up to 9 alone: far ones would drown the rewards
        critic.out.weight[(slice(113, 142) if value is None else slice(None))].normal_(0, 0.3)
    numbers = {"actor_lr": 3e-2, "critic_lr": 3e-2, "agents": N} | numbers
    return PPO(policy=policy, critic=critic, **numbers)


def dreamed(ppo: PPO, mask: bool = False) -> Dream:
    """A dream whose actions are the policy's own; some rows end on their way, some began after an end."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    latent = Latent(random(M, H + 1, D) * 4 - 2, torch.eye(C)[(random(M, H + 1, S) * C).long()])
    allowed = random(M, H + 1, A) < 0.6 if mask else None
    with draws.drawing(draws.Generator(0)), torch.no_grad():
        masks = None if allowed is None else allowed[:, :-1]
        part = Latent(latent.deter[:, :-1], latent.stoch[:, :-1])
        action = ppo.policy(part, masks).sample().double()
    return Dream(latent, action, random(M, H + 1) * 2 - 1, random(M, H + 1) ** 0.2 * 0.99, allowed)


def log_prob(ppo: PPO, dream: Dream) -> tuple[Tensor, Tensor]:
    """Of the dream's actions, and the entropy."""
    part = Latent(dream.latent.deter[:, :-1], dream.latent.stoch[:, :-1])
    policy = ppo.policy(part, None if dream.mask is None else dream.mask[:, :-1])
    return policy.log_prob(dream.action), policy.entropy()


def record(ppo: PPO) -> dict[str, list[list[Tensor]]]:
    """The gradients of every epoch, as the optimisers were given them."""
    found: dict[str, list[list[Tensor]]] = {}
    for name, rule in ppo.rules.items():
        found[name] = []

        def apply(grads: list[Tensor], of: Any = rule.apply, name: str = name) -> Any:
            found[name].append([grad.clone() for grad in grads])
            return of(grads)

        rule.apply = apply  # type: ignore[method-assign]
    return found


def close(one: Any, other: Any, tolerance: float = 1e-10) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("value", [None, Squared])
def test_five_epochs_are_the_plain_lines(value: Any, mask: bool):
    """Losses by `plain.ppo`, steps by torch's own Adam and norm clip."""
    mine, theirs = behaviour(value=value, bound=0.5), behaviour(value=value, bound=0.5)
    dream = dreamed(mine, mask)
    first = {name: value.clone() for name, value in mine.state_dict().items()}
    optimisers = [
        (network, torch.optim.Adam(network.parameters(), lr=3e-2, eps=1e-5))
        for network in (theirs.actor, theirs.critic)
    ]
    with torch.no_grad():
        (old, begun), before = log_prob(theirs, dream), theirs.critic(dream.latent).mode()
    for _ in range(5):
        now, entropy = log_prob(theirs, dream)
        policy, targets = plain.ppo(now, old, entropy, before, dream.reward, dream.cont, theirs)
        weight = dream.cont[:, :-1].cumprod(1)
        told = theirs.critic(Latent(dream.latent.deter[:, :-1], dream.latent.stoch[:, :-1]))
        critic = (told.loss(targets) * weight).sum() / weight.sum()
        for (network, optimiser), loss in zip(optimisers, (policy, critic), strict=True):
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimiser.step()
    metrics = mine.optimise(dream)
    for name, moved in theirs.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], moved, rtol=0, atol=1e-8)
    assert any((first[name] != moved).any() for name, moved in theirs.state_dict().items())
    torch.testing.assert_close(metrics["loss/policy"], policy.detach(), rtol=0, atol=1e-8)
    torch.testing.assert_close(metrics["loss/value"], critic.detach(), rtol=0, atol=1e-8)
    ratio = (now - old).exp().detach()  # of the last epoch, before its step
    told = {
        "policy_kl": ratio - 1 - ratio.log(),
        "clipped": ((ratio - 1).abs() > 0.2).double(),
        "action_entropy": begun,
    }
    for name, each in told.items():
        by_hand = (weight * each).sum() / weight.sum()
        assert by_hand > 1e-3
        torch.testing.assert_close(metrics[f"behaviour/{name}"], by_hand, rtol=0, atol=1e-8)
    of_dream = {
        "behaviour/return": targets,
        "behaviour/value": before[:, :-1],
        "behaviour/reward": dream.reward[:, 1:],
        "health/value_bias": targets - before[:, :-1],
        "health/value_mae": (targets - before[:, :-1]).abs(),
    }
    for name, each in of_dream.items():
        by_hand = (weight * each).sum() / weight.sum()
        assert (by_hand - each.mean()).abs() > 1e-6  # what counts for little is in no mean
        torch.testing.assert_close(metrics[name], by_hand, rtol=0, atol=1e-8)


def test_at_the_first_epoch_the_ratio_is_one_and_the_gradient_that_of_the_policy():
    ppo = behaviour(epochs=1, entropy=0.0)
    dream, found = dreamed(ppo), record(ppo)
    part = ppo.prepare(dream)[0][0]
    gradient = torch.autograd.grad(
        -(part.share * part.advantage * log_prob(ppo, dream)[0]).mean(), ppo.rules["actor"].params
    )
    metrics = ppo.optimise(dream)
    close(found["actor"][0], gradient)
    assert metrics["behaviour/policy_kl"].item() == 0.0 and metrics["behaviour/clipped"].item() == 0.0
    assert behaviour(epochs=5).optimise(dream)["behaviour/policy_kl"].item() > 1e-4


def test_the_ratio_is_exactly_one_in_half_precision_too():
    torch.set_default_dtype(torch.float32)
    ppo = behaviour(epochs=1)
    dream = dreamed(behaviour())
    dream = replace(dream, action=dream.action.float())
    with torch.autocast("cpu", torch.bfloat16):
        metrics = ppo.optimise(dream)
    assert metrics["behaviour/policy_kl"].item() == 0.0


def test_an_epoch_sees_the_weights_that_the_last_one_left_in_half_precision():
    """Autocast keeps weights that it has cast, for as long as its region lasts."""
    torch.set_default_dtype(torch.float32)
    dream = dreamed(behaviour())
    dream = replace(dream, action=dream.action.float())
    found = []
    for keeps in (True, False):
        ppo = behaviour(epochs=3)
        gradients = record(ppo)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=keeps):
            ppo.optimise(dream)
        found.append(gradients)
    for name in ("actor", "critic"):
        assert_same(found[0][name], found[1][name])
        assert any((one != two).any() for one, two in zip(found[0][name][0], found[0][name][1], strict=True))


@pytest.mark.parametrize("chunks", [2, 3, 6, 100])
def test_chunks_have_the_gradient_of_the_whole(chunks: int):
    """Also where they are not of one size, 6 teams in 4 chunks, or where there are not as many teams."""
    found = []
    for parts in (1, chunks, 4):
        ppo = behaviour(chunks=parts, slow_rate=0.1)
        gradients = record(ppo)
        metrics = ppo.optimise(dreamed(behaviour(), mask=True))
        found.append((gradients, metrics))
    for other in (1, 2):
        for name in ("actor", "critic"):
            for one, two in zip(found[0][0][name], found[other][0][name], strict=True):
                close(one, two, 1e-9)
        assert found[0][1].keys() == found[other][1].keys()
        close(found[0][1].values(), found[other][1].values(), 1e-9)


def test_no_gradient_reaches_what_the_dream_was_made_of():
    ppo = behaviour()
    dream = dreamed(ppo)
    leaves = [x.clone().requires_grad_() for x in (dream.latent.deter, dream.latent.stoch, dream.reward, dream.cont)]
    ppo.optimise(Dream(Latent(leaves[0], leaves[1]), dream.action, leaves[2], leaves[3]))
    assert all(leaf.grad is None for leaf in leaves)
    assert not any(part.seen.requires_grad or part.targets.requires_grad for part in ppo.prepare(dream)[0])


def test_what_is_forbidden_stays_at_probability_zero_and_has_no_gradient():
    ppo = behaviour(unimix=0.0)
    dream = dreamed(ppo)
    forbidden = torch.ones(M, H + 1, A, dtype=torch.bool)
    forbidden[..., 0] = False
    only = torch.eye(A)[1 + dream.action.argmax(-1) % (A - 1)]
    gradients = record(ppo)
    ppo.optimise(replace(dream, mask=forbidden, action=only))
    bias = next(at for at, param in enumerate(ppo.rules["actor"].params) if param is ppo.actor.out.bias)
    assert all(grads[bias][0] == 0 and grads[bias][1:].abs().sum() > 0 for grads in gradients["actor"])
    part = Latent(dream.latent.deter, dream.latent.stoch)
    assert (ppo.policy(part, forbidden).logits.exp()[..., 0] == 0).all()  # type: ignore[attr-defined]


def test_dreams_that_began_after_an_end_count_for_nothing():
    """What they hold moves no gradient, the statistics of the advantages included."""
    found = []
    for wild in (0.0, 100.0):
        ppo = behaviour(epochs=2)
        dream = dreamed(behaviour())
        dream.cont[:N, 0] = 0.0  # a team's dream from an absorbing record
        dream.reward[:N] += wild
        gradients = record(ppo)
        ppo.optimise(dream)
        found.append(gradients)
    for name in ("actor", "critic"):
        for one, two in zip(found[0][name], found[1][name], strict=True):
            close(one, two)


def test_a_dream_of_the_absent_alone_moves_nobody_to_nan():
    ppo = behaviour()
    dream = dreamed(ppo)
    dream.cont[:] = 0.0
    metrics = ppo.optimise(dream)
    assert all(torch.isfinite(x).all() for x in [*metrics.values(), *ppo.parameters()])


def test_a_floor_under_the_spread_keeps_noise_small():
    advantage, share = torch.randn(40) * 1e-3, torch.ones(40)
    assert abs(standardised(advantage, share, 1e-5).std(correction=0).item() - 1) < 1e-9
    assert (
        abs(
            standardised(advantage, share, 0.1).std(correction=0).item() / (advantage.std(correction=0).item() * 10) - 1
        )
        < 1e-9
    )
    found = [standardised(advantage * 1e4, share, least) for least in (1e-5, 0.1)]
    torch.testing.assert_close(*found)


def test_the_clip_ends_what_there_is_to_gain():
    log, advantage = torch.linspace(-1, 1, 41).requires_grad_(), torch.tensor([[1.0], [-2.0]])
    slope = torch.autograd.grad(clipped_loss(log, torch.zeros(41), advantage, 0.2).sum(), log)[0]
    for at, x in enumerate(log.tolist()):
        ratio = torch.tensor(x).exp().item()
        gain = (ratio if ratio < 1.2 else 0) * 1.0 + (ratio if ratio > 0.8 else 0) * -2.0
        assert abs(slope[at].item() + gain) < 1e-9


def test_the_slow_critic_follows_and_draws():
    with_slow, without = behaviour(slow_rate=0.5), behaviour()
    dream = dreamed(without)
    found = record(with_slow), record(without)
    assert with_slow.slow is not None and without.networks().keys() == {"actor", "critic"}
    before = [p.clone() for p in with_slow.slow.parameters()]
    for ppo in (with_slow, without):
        ppo.optimise(dream)
        ppo.follow()
    assert any((one != two).any() for one, two in zip(found[0]["critic"][0], found[1]["critic"][0], strict=True))
    close(
        with_slow.slow.parameters(), [(a + b) / 2 for a, b in zip(before, with_slow.critic.parameters(), strict=True)]
    )
    assert not any(p.requires_grad for p in with_slow.slow.parameters())


def test_the_optimisers_are_part_of_a_learners_state():
    """Saved after one update and taken back, the next is the same to the bit."""
    ppo = behaviour(slow_rate=0.1)
    dream = dreamed(ppo)
    optimiser = Together(**ppo.rules)
    ppo.optimise(dream)
    kept = {name: value.clone() for name, value in ppo.state_dict().items()}
    state = torch.utils._pytree.tree_map(torch.clone, optimiser.state_dict(dict(ppo.named_parameters())))  # noqa: SLF001
    one = ppo.optimise(dream)
    ppo.load_state_dict(kept)
    optimiser.load_state_dict(state, dict(ppo.named_parameters()))
    assert_same(ppo.optimise(dream), one)


class NoHost(TorchDispatchMode):
    """Raises where a value is read on the host, or memory is sized by one: what a recorded graph cannot repeat."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(word in str(func) for word in ("_local_scalar_dense", "nonzero", "masked_select")), func
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_on_the_host_and_memory_stays():
    ppo = behaviour(slow_rate=0.1, chunks=2)
    dream = dreamed(ppo, mask=True)
    ppo.optimise(dream)
    changing = [*ppo.parameters(), *Together(**ppo.rules).tensors()]
    where = [tensor.data_ptr() for tensor in changing]
    with NoHost():
        ppo.optimise(dream)
        ppo.follow()
    assert where == [tensor.data_ptr() for tensor in changing]


def test_it_finds_the_better_action():
    ppo = behaviour(actor_lr=3e-3, critic_lr=3e-3)
    assert isinstance(ppo, OptimisingBehaviour)
    dream = dreamed(ppo)
    for _ in range(40):
        with torch.no_grad():
            part = Latent(dream.latent.deter[:, :-1], dream.latent.stoch[:, :-1])
            action = ppo.policy(part).sample().double()
        reward = torch.cat([torch.zeros(M, 1), action[..., 2]], 1)
        ppo.optimise(replace(dream, action=action, reward=reward))
    assert ppo.policy(dream.latent).mode()[:, :-1, 2].mean() > 0.9


def test_an_epoch_at_least():
    with pytest.raises(ValueError, match="at least one epoch"):
        behaviour(epochs=0)

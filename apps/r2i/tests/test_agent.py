"""What R2I changes: its dynamics obey the laws, parts read what they say, gradients are clipped by name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from env_adapters import ActionSpec
from gymnasium import spaces
from r2i.agent import R2I, build
from r2i.cli import APP
from r2i.config import Config
from r2i.dynamics import NoResets, Recurrent
from r2i.parts import optimiser
from wm_core import draws
from wm_core.encoders import Discretes, OneHotVectors
from wm_core.pathwise import PathwiseActorCritic
from wm_core.testing import check_dynamics
from wm_core.types import Batch, Latent
from wm_run.configs import resolve
from wm_ssm import S5, by_name

SPACE = spaces.Dict({"vector": spaces.Box(-np.inf, np.inf, (3,), np.float32)})


def agent(**changes: Any) -> R2I:
    config: Any = resolve(APP, "tiny")
    made = build(
        dataclasses.replace(config, device="cpu", precision="fp32", **changes),
        SPACE,
        ActionSpec(discrete=(2,), continuous=0),
    )
    for layer in made.world.modules():
        if isinstance(layer, S5) and isinstance(layer.start, torch.nn.Parameter):
            torch.nn.init.normal_(layer.start)
    return made


def batch(rows: int = 2, length: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(0)
    flags = {name: torch.zeros(rows, length, dtype=torch.bool) for name in ("first", "last", "terminal", "reset")}
    flags["first"][0, 6] = flags["last"][0, 5] = True
    flags["reset"] |= flags["first"]
    flags["reset"][:, 0] = True
    steps = {
        "vector": torch.randn(rows, length, 3, generator=generator),
        "action": torch.nn.functional.one_hot(torch.randint(2, (rows, length), generator=generator), 2).float(),
        "reward": torch.randn(rows, length, generator=generator),
        "weight": torch.ones(rows, length),
    }
    return Batch(steps | flags, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{}, {"posterior": "recurrent"}, {"initial": "zero", "discretise": "zoh"}], ids=str)
def test_the_dynamics_obeys_the_laws(changes: dict[str, Any]) -> None:
    dynamics = agent(**changes).world.dynamics
    check_dynamics(dynamics, embed={"obs": 16}, action=2)


def test_the_recurrent_posterior_sees_the_state_and_the_parallel_one_does_not() -> None:
    for posterior in ("parallel", "recurrent"):
        dynamics: Any = agent(posterior=posterior).world.dynamics
        assert isinstance(dynamics, Recurrent) is (posterior == "recurrent")
        embed, first = {"obs": torch.randn(1, 4, 16)}, torch.zeros(1, 4, dtype=torch.bool)
        posts = []
        for scale in (0.0, 3.0):
            carry = dynamics.initial(1)
            carry["backbone"] = carry["backbone"] + scale
            posts.append(dynamics.observe(carry, embed, torch.zeros(1, 4, 2), first).post[:, 0])
        assert posts[0].equal(posts[1]) is (posterior == "parallel")


@pytest.mark.parametrize("reads, width", [("output", 16 + 16), ("hidden", 16 + 64), ("full", 16 + 16 + 64)])
def test_policy_and_critic_read_what_the_config_says(reads: Any, width: int) -> None:
    """deter 16, stoch 4 x 4, hidden 2 * 16 states * 2 layers."""
    made = agent(policy_input=reads)
    assert made.behaviour.actor.mlp[0].in_features == made.behaviour.critic.mlp[0].in_features == width
    assert made.world.heads["reward"].reads == ("deter", "stoch")
    metrics, _ = made.update(batch())
    assert all(value.isfinite() for value in metrics.values())


def test_a_continuous_policy_learns_through_the_dynamics_and_moves_nothing_else() -> None:
    """As released; world model and critic make the same update as beside a policy that learns by REINFORCE."""
    after = {}
    for how in ("auto", "reinforce"):
        config: Any = dataclasses.replace(
            resolve(APP, "tiny"), device="cpu", precision="fp32", warmup=0, actor_grad=how
        )
        made = build(config, SPACE, ActionSpec(discrete=(), continuous=2))
        assert isinstance(made.behaviour, PathwiseActorCritic) is (how == "auto")
        with torch.no_grad():
            made.world.heads["reward"].out.weight.normal_(std=1e-2)
        metrics = made.update(batch())[0]
        assert all(value.isfinite() for value in metrics.values())
        after[how] = {name: p.detach().clone() for name, p in made.named_parameters()}
    apart = {name for name, p in after["auto"].items() if not p.equal(after["reinforce"][name])}
    assert apart and all(name.startswith("behaviour.actor.") for name in apart)
    assert not isinstance(agent().behaviour, PathwiseActorCritic)
    with pytest.raises(ValueError, match="actor_grad reinforce"):
        agent(actor_grad="dynamics")


def test_each_name_of_the_s5_tensors_is_clipped_and_moved_by_itself() -> None:
    made = agent(clip=1e-3, ssm_lr=0.5, lr=0.0, warmup=0)
    rules = optimiser(resolve(APP, "tiny"), made.world, made.behaviour).rules  # type: ignore[arg-type]
    names = list(by_name(made.world))
    assert list(rules) == ["world", *names, "actor", "critic"]
    owned = [id(p) for rule in rules.values() for p in rule.params]
    trained = [p for p in made.parameters() if p.requires_grad]
    assert sorted(owned) == sorted(map(id, trained))  # each once
    before = {name: [p.clone() for p in group] for name, group in by_name(made.world).items()}
    others = made.world.encoder.mlp[0].weight.clone()
    metrics, _ = made.update(batch())
    for name, group in by_name(made.world).items():
        assert metrics[f"opt/grad_norm/{name}"] > 0
        assert any(not p.equal(old) for p, old in zip(group, before[name], strict=True)), name
    assert made.world.encoder.mlp[0].weight.equal(others)  # lr 0


def test_time_outs_teach_the_continue_head_where_the_config_says_so() -> None:
    losses = {}
    for time_outs in ("truncate", "terminate"):
        metrics, _ = agent(time_outs=time_outs).update(batch())
        losses[time_outs] = metrics["loss/cont"].item()
    assert losses["truncate"] != losses["terminate"]


@pytest.mark.parametrize("posterior", ["parallel", "recurrent"])
@pytest.mark.parametrize(
    "initial, start_stoch, zero", [("learned", "state", False), ("zero", "state", True), ("zero", "mode", False)]
)
def test_an_episode_begins_with_the_z_that_the_config_says(
    posterior: Any, initial: Any, start_stoch: Any, zero: bool
) -> None:
    """With zeros, as released for a zero state, every norm of the stack multiplies the gradient by a thousand."""
    made = agent(initial=initial, start_stoch=start_stoch, posterior=posterior)
    token: Any = made.world.dynamics.beginning
    start = token(torch.ones(1, 1, 16), torch.ones(1, 1, 2), torch.ones(1, 1, 1) > 0)
    assert start[..., :16].unflatten(-1, (4, 4)).sum(-1).eq(not zero).all() and start[..., 16:].eq(0).all()
    norm = made.update(batch())[0]["opt/grad_norm/world"].item()
    assert norm > 1e6 if zero else norm < 1e5


def test_a_policy_begins_as_large_as_the_config_says() -> None:
    layers = {scale: agent(actor_outscale=scale).behaviour.actor.out for scale in (1.0, 0.01)}
    torch.testing.assert_close(layers[0.01].weight * 100, layers[1.0].weight)
    assert agent().behaviour.actor.out.weight.equal(layers[1.0].weight)
    assert layers[1.0].weight.std().item() == pytest.approx(16**-0.5, rel=0.3)


def test_a_dream_goes_on_or_ends_as_the_config_says() -> None:
    """Yes or no with the discount outside of the target, or a probability with the discount inside."""
    discount, latent = 1 - 1 / 333, Latent(torch.zeros(1, 9, 16), torch.zeros(1, 9, 4, 4))
    given = batch()
    given.steps["terminal"][0, 5] = True
    logit = torch.linspace(-4.1, 4.3, 9)[None, :, None]
    ends: dict[str, Any] = {}
    for how in ("mode", "mean"):
        made = agent(dream_continue=how)
        head: Any = made.world.heads["cont"]
        ends[how] = head.distribution(logit)
        assert type(head(latent)) is type(ends[how])
        losses, trace = made.world.losses(made.world.prefill(None, 2), given.steps)
        with torch.no_grad():
            raw = head.out(head.mlp(trace.latent.read("deter", "stoch")))[..., 0]
        target = (~given.steps["terminal"]).float() * (1.0 if how == "mode" else discount)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(raw, target, reduction="none")
        torch.testing.assert_close(losses["cont"].detach(), expected)
    assert ends["mode"].mode().equal(discount * (logit[..., 0] > 0).float())
    assert ends["mean"].mode().equal(logit[..., 0].sigmoid())


@pytest.mark.parametrize("how, loss", [("vector", OneHotVectors), ("categorical", Discretes)])
def test_discrete_observations_are_seen_and_learned_as_the_config_says(how: Any, loss: Any) -> None:
    space = spaces.Dict({"card": spaces.Discrete(4), "pair": spaces.MultiDiscrete([2, 3])})
    config: Any = dataclasses.replace(
        resolve(APP, "tiny"),  # type: ignore[arg-type]
        device="cpu",
        precision="fp32",
        discrete_observations=how,
    )
    made = build(config, space, ActionSpec((2,), 0))
    given = batch()
    steps = given.steps | {"card": torch.randint(4, (2, 16)), "pair": torch.randint(2, (2, 16, 2))}
    encoder, decoder = made.world.encoder, made.world.decoder
    seen = encoder.input(steps)  # type: ignore[attr-defined]
    assert seen.unique().tolist() == pytest.approx([0, math.log(2) if how == "vector" else 1])
    found = decoder(Latent(torch.zeros(2, 16, 16), torch.zeros(2, 16, 4, 4)))
    assert all(isinstance(one, loss) for one in found.values())
    metrics, _ = made.update(Batch(steps, None, None))  # type: ignore[arg-type]
    assert all(value.isfinite() for value in metrics.values())


def test_never_resetting_joins_episodes_inside_a_row_alone() -> None:
    carried: Any = agent(resets="never").world.dynamics
    fresh: Any = agent().world.dynamics
    fresh.load_state_dict({key.replace("backbone.backbone", "backbone"): v for key, v in carried.state_dict().items()})
    assert isinstance(carried.backbone, NoResets)
    tokens, first = torch.randn(2, 9, 16), torch.zeros(2, 9, dtype=torch.bool)
    first[0, 5] = True
    one, other = (model.backbone(model.backbone.initial(2), tokens, first)[0] for model in (carried, fresh))
    torch.testing.assert_close(one[:, :5], other[:, :5])
    torch.testing.assert_close(one[1], other[1])
    assert (one[0, 5:] - other[0, 5:]).abs().max() > 1e-4
    one, other = (
        model.backbone(model.backbone.initial(2) + 1, tokens[:, 5:6], first[:, 5:6])[0] for model in (carried, fresh)
    )
    torch.testing.assert_close(one, other)  # acting


def test_never_resetting_joins_episodes_under_a_recurrent_posterior_too() -> None:
    carried: Any = agent(resets="never", posterior="recurrent").world.dynamics
    fresh: Any = agent(posterior="recurrent").world.dynamics
    fresh.load_state_dict({key.replace("backbone.backbone", "backbone"): v for key, v in carried.state_dict().items()})
    given, joined = batch().steps, {}
    embed = {"obs": torch.randn(2, 16, fresh.posterior[0][0].in_features - fresh.widths["deter"])}
    for name, model in (("never", carried), ("first", fresh)):
        with torch.no_grad(), draws.drawing(draws.Generator(0)):
            joined[name] = model.observe(model.initial(2), embed, given["action"], given["reset"]).latent.deter
    gap = (joined["never"] - joined["first"]).abs().amax(-1)
    assert gap[1].max() < 1e-6 and gap[0, :6].max() < 1e-6 and gap[0, 6:].min() > 1e-6


@pytest.mark.parametrize("preset", sorted(APP.files("presets")))
def test_presets_hold_the_released_sizes(preset: str) -> None:
    """The table of the released configurations: D, H, P, L, head layers and width, rows, length, ratio, environments."""
    config = resolve(APP, preset)
    assert isinstance(config, Config)
    released = {
        "bsuite": (512, 512, 128, 3, 2, 512, 16, 256, 1024, 1),
        "popgym": (1024, 512, 128, 3, 2, 512, 4, 1024, 64, 8),
        "memory_maze": (2048, 1024, 512, 5, 4, 1024, 4, 1024, 64, 40),
        "atari100k": (512, 512, 128, 4, 2, 512, 4, 1024, 1024, 1),
        "dmc_proprio": (512, 512, 128, 4, 2, 512, 4, 1024, 512, 4),
        "dmc_vision": (512, 512, 128, 4, 2, 512, 4, 1024, 512, 4),
    }
    names = ["deter", "width", "state", "ssm_layers", "layers", "units", "batch", "length", "train_ratio", "envs"]
    if preset in released:
        assert tuple(getattr(config, name) for name in names) == released[preset]
        assert config.precision == ("fp32" if preset in ("bsuite", "atari100k") else "auto")  # bf16 stands for fp16


@pytest.mark.parametrize("ablation", sorted(APP.files("ablations")))
def test_every_ablation_updates(ablation: str) -> None:
    base, changed = resolve(APP, "tiny"), resolve(APP, "tiny", "", ablation)
    assert base != changed or ablation == "full"
    changes = {name: value for name, value in dataclasses.asdict(changed).items() if getattr(base, name) != value}
    metrics, _ = agent(**changes).update(batch())
    assert all(value.isfinite() for value in metrics.values())

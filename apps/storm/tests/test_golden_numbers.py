"""What STORM's public code computes on its own weights, rows and noise, in float64, computed once more.

(`test_golden.py` holds the same against a plain loop at other sizes, with other weights.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from env_adapters import ActionSpec
from gymnasium import spaces
from storm.agent import Storm, build
from storm.behaviour import storm_return
from storm.config import Config
from storm.heads import SymlogTwoHot
from storm.world import rows
from torch import Tensor
from torch.nn import functional as F
from wm_core import draws, returns
from wm_core.distributions import unimix_logits
from wm_core.kl import BalancedKL, categorical_kl
from wm_core.optim import Adam, NormClip, total
from wm_core.types import Dream

FILE = np.load(Path(__file__).parent / "golden/storm.npz")
TOLERANCE = 4e-11, 1e-13  # absolute, relative to the largest entry: ten times what was measured when the file was made
SIZES: dict[str, Any] = json.loads(str(FILE["config"]))
GIVEN = {
    *("config", "world_tensors", "world_shapes", "world_weights", "buffer_tensors", "buffer_shapes", "adam/lr"),
    *(
        "agent_tensors",
        "agent_shapes",
        "agent_weights",
        "adam/clip",
        "agent/rewards",
        "context/image",
        "context/action",
    ),
    *(f"noise/{name}" for name in ("posterior", "context", "dream", "action")),
    *(f"batch/{name}" for name in ("image", "action", "reward", "terminal")),
    *(f"kl/{where}/{side}_logits" for where in ("below", "above") for side in ("left", "right")),
    *("twohot/target", "twohot/logits", "lambda_return/reward", "lambda_return/end", "lambda_return/value"),
}
PREFIXES = {  # in this order: the longer first
    "encoder.backbone.": "world.encoder.convs.convs.",
    "image_decoder.backbone.0.": "world.decoder.convs.inputs.",
    "image_decoder.backbone.": "world.decoder.convs.convs.",
    "dist_head.post_head.": "world.dynamics.posterior.",
    "dist_head.prior_head.": "world.dynamics.prior.",
    "storm_transformer.stem.": "world.dynamics.token.",
    "storm_transformer.position_encoding.pos_emb.": "world.dynamics.backbone.positions.",
    "storm_transformer.layer_norm.": "world.dynamics.backbone.norm.",
    "storm_transformer.layer_stack.": "world.dynamics.backbone.blocks.",
    "reward_decoder.backbone.": "world.heads.reward.layers.",
    "reward_decoder.head.": "world.heads.reward.out.",
    "termination_decoder.backbone.": "world.heads.cont.layers.",
    "termination_decoder.head.0.": "world.heads.cont.out.",
    "actor.6.": "behaviour.actor.out.",
    "actor.": "behaviour.actor.mlp.",
    "critic.6.": "behaviour.critic.out.",
    "critic.": "behaviour.critic.layers.",
    "slow_critic.6.": "behaviour.slow.out.",
    "slow_critic.": "behaviour.slow.layers.",
}
BLOCK = {
    **{
        f"slf_attn.w_{short}s": f"attention.{name}"
        for short, name in zip("qkv", ("query", "key", "value"), strict=True)
    },
    "slf_attn.fc": "attention.out",
    "slf_attn.layer_norm": "norm",
    "pos_ffn.layer_norm": "last",
    "pos_ffn.w_1": "mlp.0",
    "pos_ffn.w_2": "mlp.2",
}


def gold(name: str) -> Tensor:
    return torch.from_numpy(FILE[name])


def ours(name: str) -> str:
    """Our name of a tensor of the public code."""
    start, own = next((start, own) for start, own in PREFIXES.items() if name.startswith(start))
    rest = name.removeprefix(start)
    if own.endswith("decoder.convs.convs."):
        layer, _, kind = rest.partition(".")
        rest = f"{int(layer) - 2}.{kind}"
    for theirs, mine in BLOCK.items():
        rest = rest.replace(f".{theirs}.", f".{mine}.") if own.endswith("blocks.") else rest
    return own + rest


def unflat(kind: str, flat: Tensor) -> dict[str, Tensor]:
    """A flat array by our names; the public code learns "ends" where ours learns "goes on", with the other sign."""
    shapes = [tuple(int(x) for x in shape if x) for shape in FILE[f"{kind}_shapes"]]
    names, parts = map(str, FILE[f"{kind}_tensors"]), flat.split([int(np.prod(shape)) for shape in shapes])
    sign = {True: -1.0, False: 1.0}
    return {
        ours(name): part.reshape(shape) * sign["termination_decoder.head" in name]
        for name, part, shape in zip(names, parts, shapes, strict=True)
    }


class Given:
    """Exponential noise, or the uniform numbers that make Gumbel noise of it, by the shape that is asked for."""

    def __init__(self, *noise: Tensor) -> None:
        self.noise = {tuple(x.shape): x for x in noise}

    def exponential(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return self.noise[tuple(shape)].clone()

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.exp(-self.noise[tuple(shape)])

    normal = exponential


def agent() -> Storm:
    """One with the public code's weights."""
    same = ("width", "layers", "heads", "hidden", "depth", "positions", "stoch", "classes", "horizon")
    numbers = {name: SIZES[name] for name in (*same, "dreams", "discount", "lam", "entropy")}
    length = {"batch": SIZES["rows"], "length": SIZES["length"] - 1, "dream_context": SIZES["context"]}
    config = Config(**numbers | length, dropout=0.0, device="cpu", precision="fp32")
    image = spaces.Dict({"image": spaces.Box(0, 255, tuple(SIZES["image"]), np.uint8)})
    made = build(config, image, ActionSpec((SIZES["actions"],), 0))
    with torch.no_grad():
        for kind in ("world", "agent"):
            for name, value in unflat(kind, gold(f"{kind}_weights")).items():
                made.get_parameter(name).copy_(value)
    return made


def functions() -> Iterator[tuple[str, Tensor]]:
    logits = gold("twohot/logits").requires_grad_()
    head = SymlogTwoHot(logits)
    loss = head.loss(gold("twohot/target"))
    yield from {"twohot/loss": loss, "twohot/decode": head.mode(), "twohot/bins": head.bins}.items()
    yield "twohot/grad", torch.autograd.grad(loss.sum(), logits)[0]
    for where in ("below", "above"):
        left, right = (gold(f"kl/{where}/{side}_logits").requires_grad_() for side in ("left", "right"))
        found, raw = BalancedKL(1.0, clip="mean")(unimix_logits(left, 0.01), unimix_logits(right, 0.01))
        assert torch.equal(found["dyn"], found["rep"])
        yield from {f"kl/{where}/raw": raw.mean(), f"kl/{where}/loss": found["dyn"].mean()}.items()
        yield f"kl/{where}/grad_left", torch.autograd.grad(found["rep"].mean(), left)[0]
        yield f"kl/{where}/grad_right", torch.autograd.grad(found["dyn"].mean(), right)[0]
    cont = SIZES["discount"] * (~gold("lambda_return/end")).double()
    arrived = [F.pad(x, (1, 0)) for x in (gold("lambda_return/reward"), cont)]
    yield "lambda_return/returns", storm_return(*arrived, gold("lambda_return/value"), SIZES["lam"], "t")


def model(made: Storm) -> Iterator[tuple[str, Tensor]]:
    """The world model in training mode: each loss, its gradient, the norms' statistics; and three steps of Adam."""
    world, caught = made.train().world, {}
    steps = {name: gold(f"batch/{name}") for name in ("image", "reward", "terminal")}
    steps["action"] = F.one_hot(gold("batch/action"), SIZES["actions"]).double()
    steps |= {"first": torch.zeros_like(steps["terminal"]), "weight": torch.ones(steps["terminal"].shape)}
    for name in ("encoder", "decoder"):
        part = getattr(world, name)
        part.register_forward_hook(lambda module, inputs, out, name=name: caught.update({name: out}))
    with draws.drawing(Given(gold("noise/posterior"))):
        losses, trace = world.losses(world.prefill(None, 2), rows(steps))
    pixels: Any = caught["decoder"]["image"]
    yield from {"world/embedding": caught["encoder"]["obs"], "world/posterior": trace.post}.items()
    yield from {"world/sample": trace.latent.stoch.argmax(-1), "world/h": trace.latent.deter[:, 1:]}.items()
    yield "world/prior", trace.prior[:, 1:]
    yield "world/reconstruction", pixels.pred.permute(0, 1, 4, 2, 3)[..., ::8, ::8]
    heads: Any = {name: head(trace.latent) for name, head in world.heads.items()}
    yield "world/reward_logits", heads["reward"].logits[:, 1:]
    yield "world/termination_logit", -heads["cont"].logits[:, 1:]
    kl = categorical_kl(trace.post, trace.prior)[:, 1:]
    yield from {"loss/kl": kl, "loss/raw_kl": kl.mean()}.items()
    names = {
        "image": "obs/image",
        "reward": "reward",
        "termination": "cont",
        "dynamics": "dyn",
        "representation": "rep",
    }
    yield from {f"loss/{theirs}": losses[name].mean() for theirs, name in names.items()}.items()
    whole = total(losses, made.scales)
    yield "loss/total", whole
    own = dict(world.named_parameters(prefix="world"))
    grads = torch.autograd.grad(whole, [*own.values()], allow_unused=True, materialize_grads=True)
    yield from flat("world_gradients", "world", dict(zip(own, grads, strict=True)))
    yield from flat("buffers_after", "buffer", dict(made.named_buffers()))
    rule = Adam(own.values(), lr=gold("adam/lr").item(), clip=NormClip(gold("adam/clip").item()))
    given = unflat("world", gold("world_gradients"))
    before = {name: value.detach().clone() for name, value in own.items()}
    for times in (1, 2, 3):
        rule.apply([times * given[name] for name in own])
    yield from flat("adam/params", "world", own)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(before[name])


def flat(array: str, kind: str, values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Ours beside the reference's of a flat array, tensor by tensor: (2, ...)."""
    for name, theirs in unflat(kind, gold(array)).items():
        yield f"{array}:{name}", torch.stack([values[name].detach(), theirs])


def dreamt(made: Storm) -> Dream:
    """A dream after contexts; their last record, which is not looked at, is made up."""
    world, behaviour = made.eval().world, made.behaviour
    image, action = gold("context/image"), F.one_hot(gold("context/action"), SIZES["actions"]).double()
    steps = {"image": torch.cat([image, image[:, :1]], 1), "action": F.pad(action, (0, 0, 1, 0))}
    steps["first"] = torch.zeros(steps["action"].shape[:2], dtype=torch.bool)
    seen = torch.cat([gold("noise/context"), torch.ones(3, 1, 4, 4)], 1)
    start, later = gold("noise/dream").split([1, 16])
    noise = Given(seen, start.transpose(0, 1), later.flip(0), gold("noise/action").flip(0))
    with torch.no_grad(), draws.drawing(noise):
        context = world.context(steps)
        return world.dream(world.starts(context, 1), behaviour.policy, SIZES["horizon"])


def imagination(made: Storm) -> Iterator[tuple[str, Tensor]]:
    dream = dreamt(made)
    yield from {"dream/sample": dream.latent.stoch.argmax(-1), "dream/h": dream.latent.deter}.items()
    yield from {"dream/action": dream.action.argmax(-1), "dream/reward": dream.reward[:, 1:]}.items()
    yield "dream/end", dream.cont[:, 1:] == 0


def behaviour(made: Storm) -> Iterator[tuple[str, Tensor]]:
    """Five updates of policy and critic on that dream, with other rewards."""
    dream, learner, rule = dreamt(made), made.behaviour, made.optimiser.rules["behaviour"]
    params = {f"behaviour.{name}": p for name, p in learner.named_parameters()}
    logged: dict[str, list[Tensor]] = {}
    for count, reward in enumerate(gold("agent/rewards"), 1):
        given = Dream(dream.latent, dream.action, F.pad(reward, (1, 0)), dream.cont)
        losses, metrics = learner.evaluate(given)
        value: Any = learner.critic(given.latent)
        target = storm_return(given.reward, given.cont, value.mode().detach(), SIZES["lam"], "t")
        entropy = learner.actor(given.latent).entropy()[:, :-1].mean()
        for name, number in {
            "policy_loss": losses["policy"].mean() + SIZES["entropy"] * entropy,
            "value_loss": type(value)(value.logits[:, :-1]).loss(target).mean(),
            "entropy_loss": entropy,
            "total_loss": total(losses, dict.fromkeys(losses, 1.0)),
            "norm_ratio": metrics["behaviour/return_scale"],
        }.items():
            logged.setdefault(name, []).append(number.detach())
        whole = total(losses, dict.fromkeys(losses, 1.0))
        if count == 1:
            grads = [*torch.autograd.grad(whole, rule.params, retain_graph=True)]
            rule.clip(rule.params, grads)
            own = {name: torch.zeros_like(p) for name, p in params.items()}
            own |= {name: grads[i] for name, p in params.items() for i, q in enumerate(rule.params) if q is p}
            yield from flat("agent/gradients_1", "agent", own)
        rule.step(whole)
        learner.follow()
        if count in (1, 5):
            yield from flat(f"agent/params_{count}", "agent", {name: p.detach().clone() for name, p in params.items()})
    for name, numbers in logged.items():
        yield f"agent/interpolated/{name}", torch.stack(numbers)


def published(made: Storm) -> Iterator[tuple[str, Tensor]]:
    """The same with percentiles that are not interpolated, as in the public code: ours declares that it departs."""

    def kth(ordered: Tensor, q: float) -> Tensor:
        return ordered[int(q * len(ordered)) - 1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(returns, "quantile", kth)
        for name, value in behaviour(made):
            if name.startswith("agent/interpolated"):
                yield name.replace("interpolated", "published"), value


@cache
def errors() -> dict[str, tuple[float, float]]:
    """Of every array that is no input: the largest difference, absolute and as a share of the largest entry (of a flat
    array: in each tensor)."""
    worst: dict[str, tuple[float, float]] = {}
    torch.set_default_dtype(torch.float64)
    try:
        first, second = agent(), agent()
        parts = (functions(), model(first), model(second), imagination(first), behaviour(first), published(second))
        for name, value in (one for part in parts for one in part):
            array, _, tensor = name.partition(":")
            mine, theirs = (x.detach().double() for x in (value.unbind() if tensor else (value, gold(array))))
            assert mine.shape == theirs.shape, f"{name}: {tuple(mine.shape)}, not {tuple(theirs.shape)}"
            off, largest = (mine - theirs).abs().max().item(), theirs.abs().max().item()
            share = off / largest if largest else off
            worst[array] = max(worst.get(array, (0.0, 0.0))[0], off), max(worst.get(array, (0.0, 0.0))[1], share)
    finally:
        torch.set_default_dtype(torch.float32)
    return worst


def test_every_array_is_an_input_or_held() -> None:
    assert set(FILE.files) - GIVEN == errors().keys() and GIVEN <= set(FILE.files)


@pytest.mark.parametrize("name", [name for name in FILE.files if name not in GIVEN])
def test_it_is_what_the_public_code_computed(name: str) -> None:
    off = errors()[name]
    assert off[0] <= TOLERANCE[0] and off[1] <= TOLERANCE[1], off

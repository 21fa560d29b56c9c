"""`dream --sensitivity`: imagined frames -> what the decoder is sensitive to there, as a picture and as numbers.

Maps are by all of the state that the decoder reads, at draws of the prior of each imagined step (these are drawn as a
picture) and at its probabilities; and by the stochastic state alone. What a decoder knows from its deterministic state is
not in the last: a Dreamer has there whatever it can predict.
Sizes: B rows, T steps, H W C image, N frames, S x K stochastic.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from wm_core import draws
from wm_core.agent import Agent
from wm_core.distributions import straight_through
from wm_core.errors import UserError
from wm_core.types import Latent

from wm_run import filmstrip, jacobian
from wm_run.loading import Loaded, with_world
from wm_run.openloop import OpenLoop

SAMPLES = 8  # draws of the prior that a map is the mean of
PROBES = 64  # directions of the plain map, at the probabilities and over all samples
MOVING = 10 / 255  # a pixel moves where it has changed by more, in any channel
ROWS = 3  # dreams shown
FRAMES = 16  # decoded at a time


@dataclass(frozen=True)
class Maps:
    """Sensitivity of the imagined steps of an open loop, each (B, T, H, W)."""

    plain: Tensor
    weighted: Tensor
    plain_at_mean: Tensor  # the same two where the stochastic state is the prior's probabilities
    weighted_at_mean: Tensor
    plain_of_stoch: Tensor  # by the stochastic state alone, the deterministic one held, at draws of the prior
    weighted_of_stoch: Tensor

    def shares(self, where: Tensor, valid: Tensor) -> dict[str, float]:
        """Of each kind of map the share of its mass at pixels (B, T, H, W), over valid frames (B, T); and the share of
        these pixels themselves, which a map that is the same everywhere would have."""
        found = {name: jacobian.share(getattr(self, name)[valid], where[valid]) for name in self.__dict__}
        return found | {"pixels": jacobian.share(torch.ones_like(self.plain)[valid], where[valid])}


def measure(agent: Agent, found: OpenLoop, *, seed: int = 0) -> Maps:
    """The maps of an open loop. Raises UserError for an agent without a critic, or whose world model has no prior.

    Decoder and critic are run as copies in float64, for small differences are taken of them.
    """
    critic, dynamics = getattr(agent.behaviour, "critic", None), agent.world.dynamics
    if critic is None or not hasattr(dynamics, "prior") or not hasattr(dynamics, "logits"):
        raise UserError("--sensitivity needs a behaviour with a `critic`, and a dynamics with `prior` and `logits`")
    assert found.imagined is not None
    training = agent.training
    agent.eval()
    decoder, critic = (copy.deepcopy(part).double() for part in (agent.world.decoder, critic))  # type: ignore[union-attr]
    with draws.drawing(draws.Generator(seed, agent.device)):
        flat = _frames(found.imagined, lambda x: x.flatten(0, 1))
        pieces = [
            _some(decoder, critic, found.key, _frames(flat, lambda x, a=at: x[a : a + FRAMES]), dynamics)
            for at in range(0, len(flat.deter), FRAMES)
        ]
    agent.train(training)
    lead = found.imagined.deter.shape[:2]
    return Maps(*(torch.cat(one).float().unflatten(0, lead) for one in zip(*pieces, strict=True)))


def _frames(latent: Latent, take: Any) -> Latent:
    return Latent(take(latent.deter), take(latent.stoch), None if latent.hidden is None else take(latent.hidden))


def _some(decoder: Any, critic: Any, key: str, latent: Latent, dynamics: Any) -> list[Tensor]:
    """The maps (N, H, W) of N imagined states."""
    with torch.no_grad():
        logp = dynamics.prior_logits(latent.deter).double()  # (N, S, K)
    tall = _frames(latent, lambda x: x.double())
    reads = getattr(decoder, "reads", ("deter", "stoch"))

    def with_stoch(z: Tensor) -> Latent:
        return Latent(tall.deter, z, tall.hidden)

    def from_read(x: Tensor) -> Latent:
        """The state from its part that the decoder reads, (N, F)."""
        parts = x.split([tall.read(name).shape[-1] for name in reads], -1)
        given = {name: part.reshape(getattr(tall, name).shape) for name, part in zip(reads, parts, strict=True)}
        return replace(tall, **given)

    def maps(state: Callable[[Tensor], Latent], at: Tensor, probes: int) -> tuple[Tensor, Tensor]:
        def decode(x: Tensor) -> Tensor:
            image: Tensor = decoder(state(x))[key].mode()
            return image

        def value(x: Tensor) -> Tensor:
            number: Tensor = critic(state(x)).mode()
            return number

        return jacobian.plain(decode, at, probes), jacobian.weighted(decode, value, at)

    drawn = []
    for _ in range(SAMPLES):
        z = straight_through(logp, draws.gumbel(logp.shape, logp.device).double())
        whole = maps(from_read, with_stoch(z).read(*reads), PROBES // SAMPLES)
        drawn.append([*whole, *maps(with_stoch, z, PROBES // SAMPLES)])
    plain, weighted, plain_of_stoch, weighted_of_stoch = (torch.stack(one) for one in zip(*drawn, strict=True))
    return [
        plain.square().mean(0).sqrt(),
        weighted.mean(0),
        *maps(from_read, with_stoch(logp.exp()).read(*reads), PROBES),
        plain_of_stoch.square().mean(0).sqrt(),
        weighted_of_stoch.mean(0),
    ]


def moving(true: Tensor, context: int) -> Tensor:
    """Pixels of (B, T, H, W, C) in [0, 1] that changed on the way to each step after the context: (B, T - context, H, W).

    >>> moving(torch.tensor([0.0, 0.01, 0.5]).view(1, 3, 1, 1, 1), 1).flatten().tolist()
    [False, True]
    """
    return (true[:, context:] - true[:, context - 1 : -1]).abs().amax(-1) > MOVING


def show(logdir: Path, loaded: Loaded, found: OpenLoop, name: str) -> list[Path]:
    """Measure, print the shares, and write LOGDIR/dream/sensitivity-<name>.png, .json and .npz; the paths.

    The .npz holds true and predicted frames, the maps, and which steps are valid, for measures of your own.
    """
    if not found.image:
        raise UserError(f"{loaded.config.task} shows no image: --sensitivity maps the pixels of a decoder of images")
    assert found.imagined is not None
    true, predicted, kept = (value[:ROWS] for value in (found.true, found.predicted, found.valid))
    some = OpenLoop(found.key, true, predicted, found.context, kept, _frames(found.imagined, lambda x: x[:ROWS]))
    maps = measure(with_world(loaded.app, loaded.agent), some)
    valid = some.valid[:, some.context :]
    shares = maps.shares(moving(some.true, some.context), valid)
    arrays = {
        name: value.cpu().numpy() for name, value in {"true": true, "predicted": predicted, "valid": kept}.items()
    }
    arrays |= {name: value.cpu().numpy() for name, value in maps.__dict__.items()}
    folder = logdir / "dream"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"sensitivity-{name}.{ending}" for ending in ("png", "json", "npz")]
    page = filmstrip.maps(
        arrays["true"], arrays["predicted"], arrays["plain"], arrays["weighted"], arrays["valid"], some.context
    )
    filmstrip.save_png(paths[0], page)
    report = {
        "app": loaded.app.name,
        "task": loaded.config.task,
        "step": loaded.step,
        "key": some.key,
        "context": some.context,
        "frames": int(valid.sum()),
        "share_on_moving_pixels": {name: None if math.isnan(one) else one for name, one in shares.items()},
    }
    paths[1].write_text(json.dumps(report, indent=1) + "\n")
    np.savez_compressed(paths[2], context=np.array(some.context), **arrays)  # type: ignore[arg-type]
    print("share of the decoder's sensitivity that lies on moving pixels of imagined frames")
    for kind, one in shares.items():
        print(f"{kind.replace('_', ' '):>20} {one:.3f}")
    return paths

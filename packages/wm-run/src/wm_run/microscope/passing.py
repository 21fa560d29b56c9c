"""A run and rows -> what its world model makes of them: posterior states of every step, and a dream after the context.

Sizes: B rows, T = C + H steps, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from wm_core import draws
from wm_core.agent import Agent
from wm_core.errors import UserError
from wm_core.types import Batch, Index, Latent, Steps
from wm_core.world import bound_action, resets, stack

from wm_run.microscope.errors import ahead as ahead_of
from wm_run.microscope.errors import middle, wrong
from wm_run.microscope.promised import Ahead
from wm_run.microscope.rows import Rows

PIECE = 16  # rows at a time
SHOWN = 3  # rows of which predictions are kept, for films


@dataclass(frozen=True)
class Pass:
    """What is kept of a run's pass over rows, on the CPU in float32, one row after another.

    sees: records of the context that it was given: a model with few positions sees the last of them alone. first: of the
    steps that it saw, of which features, post, prior, reward, cont and value are (B, sees + H, ...). Of the dream:
    imagined features (B, H, F), in `ahead` its rewards and how likely it goes on, and by observation the errors (B, H) of model,
    copy and mean frame. own: as `ahead`, of a dream under the policy's own actions, where the run learns one. valid (B, H): the
    steps of the dream that lie in the episode that the context ends in.
    """

    sees: int
    valid: Tensor
    features: Tensor
    post: Tensor
    prior: Tensor
    reward: Tensor
    cont: Tensor
    value: Tensor | None
    imagined: Tensor
    ahead: Ahead
    own: Ahead | None
    errors: dict[str, dict[str, Tensor]]
    shown: dict[str, tuple[Tensor, Tensor]]  # of images: true (SHOWN, C + H, ...) and predicted (SHOWN, H, ...)
    recalled: tuple[Tensor, Tensor, Tensor] | None


@contextmanager
def quiet(agent: Agent) -> Iterator[None]:
    """The agent in evaluation mode, and back."""
    training = agent.training
    agent.eval()
    try:
        yield
    finally:
        agent.train(training)


def room(agent: Agent, context: int, imagined: int) -> int:
    """How many records of the context its model has positions for. Raises UserError where it has none."""
    left = agent.world.dynamics.left(agent.initial(1))
    sees = int(min(context, left - imagined))
    if sees < 1:
        raise UserError(
            f"the model has no positions for a dream of {imagined} steps: it has {left:.0f}, so take fewer --imagined"
        )
    return sees


def folded(agent: Agent, rows: Rows) -> tuple[Steps, dict[str, Tensor]]:
    """Steps and what is told as the world model takes them: a team's agents as rows of their own."""
    names = {f"told/{name}": value for name, value in rows.told.items() if _fits(rows, value)}
    batch = Batch(rows.steps | names, None, Index(rows.stream, rows.start))
    steps = agent.folded(agent.to_device(batch)).steps
    told = {name.removeprefix("told/"): steps.pop(name).cpu() for name in names}
    return steps, told


def _fits(rows: Rows, value: Tensor) -> bool:
    reward = rows.steps["reward"]
    return reward.ndim == 2 or (value.ndim > 3 and value.shape[2] == reward.shape[2])


def features_of(latent: Latent) -> Tensor:
    """All that a latent carries, side by side."""
    return latent.read(*latent.names()).float().cpu()


@torch.no_grad()
def look(
    agent: Agent, steps: Steps, context: int, *, sees: int, seed: int, whole: bool = True, agents: int = 1
) -> Pass:
    """Pass rows (B, T) through a run. What is drawn depends on the seed alone; the agent's own generators are not touched.

    sees: the last so many records of the context are observed. whole: posteriors of the steps ahead too; else of the
    context alone. agents: of a team, whose rows stay together.
    """
    with quiet(agent):
        cut = {key: value[:, context - sees :] for key, value in steps.items()}
        cut["reset"] = resets(cut).clone()
        cut["reset"][:, 0] = True
        known, means = {key: value[:, :context] for key, value in steps.items()}, dict[str, Tensor]()
        pieces = [
            _piece(
                agent, {key: value[here] for key, value in cut.items()}, sees, seed + here.start, whole, known, means
            )
            for here in cuts(len(steps["first"]), agents)
        ]
    joined = _joined([one.__dict__ for one in pieces])
    joined["shown"] = {key: tuple(x[:SHOWN] for x in pair) for key, pair in pieces[0].shown.items()}
    return Pass(**joined)


def cuts(rows: int, agents: int = 1) -> list[slice]:
    """About `PIECE` rows at a time, and whole teams.

    >>> [(one.start, one.stop) for one in cuts(40)], [(one.start, one.stop) for one in cuts(20, agents=3)]
    ([(0, 16), (16, 32), (32, 48)], [(0, 15), (15, 30)])
    """
    size = max(1, PIECE // agents) * agents
    return [slice(at, at + size) for at in range(0, rows, size)]


def _piece(
    agent: Agent, steps: Steps, sees: int, seed: int, whole: bool, known: Steps, means: dict[str, Tensor]
) -> Pass:
    """Of some rows. known: the context of all, of which `means` keeps the mean frames."""
    world, rows = agent.world, len(steps["first"])
    seen = {key: value[:, :sees] for key, value in steps.items()}
    with draws.drawing(draws.Generator(seed, agent.device)), agent.computing():
        carry = world.prefill(None, rows)
        context = world.observe(carry, seen)
        start, begun = world.dynamics.starts(context, 1)
        at, latents = start, []
        for action in steps["action"][:, sees:].unbind(1):
            at, latent = world.imagine(at, action)
            latents.append(latent)
        dream = stack(latents)
        trace = world.observe(carry, steps) if whole else context
        critic = agent.behaviour.networks().get("critic")
        scalar = {"reward": world.heads["reward"](trace.latent).mode(), "cont": world.going(trace.latent)}
        ahead = _ahead(world.heads["reward"](dream).mode(), world.going(dream))
        shown = world.decoder(dream)
        value = None if critic is None else critic(trace.latent).mode()
        chosen = world.recalled(carry, seen)
        own = None
        if whole and not agent.alone:
            played = world.dream((start, begun), agent.behaviour.policy, dream.stoch.shape[1])
            own = _ahead(played.reward[:, 1:], world.going(played.latent)[:, 1:])
    errors, films = {}, {}
    for key, distribution in shown.items():
        said = distribution.mode()
        true, discrete = as_decoded(steps[key], said), not said.is_floating_point()
        if key not in means:
            means[key] = middle(as_decoded(known[key], said), discrete)
        after = true[:, sees:]
        frames = {"model": said.float(), "copy": true[:, sees - 1 : sees], "mean": means[key]}
        errors[key] = {name: wrong(after, one.expand_as(after), discrete).cpu() for name, one in frames.items()}
        if said.ndim == 5:
            films[key] = (true[:SHOWN].cpu(), said[:SHOWN].float().cpu())
    return Pass(
        sees=sees,
        valid=ahead_of(steps["first"], sees).cpu(),
        features=features_of(trace.latent),
        post=trace.post.float().cpu(),
        prior=trace.prior.float().cpu(),
        reward=scalar["reward"].float().cpu(),
        cont=scalar["cont"].float().cpu(),
        value=None if value is None else value.float().cpu(),
        imagined=features_of(dream),
        ahead=ahead,
        own=own,
        errors=errors,
        shown=films,
        recalled=None if chosen is None else (chosen.age.cpu(), (chosen.episodes != 0).cpu(), chosen.taken.cpu()),
    )


def state_after(agent: Agent, steps: Steps, context: int, seed: int) -> tuple[Any, dict[str, Tensor]]:
    """The deterministic state one step into the dream as a function of what was seen in the context, and what was seen:
    embeddings (B, C, E) by name. It holds both halves of the state that the context ends in. For `lags.gradient`."""
    world = agent.world
    seen = {key: value[:, :context] for key, value in steps.items()}
    with torch.no_grad(), agent.computing():
        embed = {name: value.float() for name, value in world.encoder(seen).items()}
        carry = world.prefill(None, len(seen["first"]))

    def state(given: Mapping[str, Tensor]) -> Tensor:
        with draws.drawing(draws.Generator(seed, agent.device)):
            trace = world.dynamics.observe(carry, given, bound_action(seen["action"]), resets(seen))
            _, latent = world.imagine(world.dynamics.starts(trace, 1)[0], steps["action"][:, context])
        return latent.deter.float()

    return state, embed


def as_decoded(true: Tensor, said: Tensor) -> Tensor:
    """The observation in the units of its prediction, and one record's shape: (B, T, ...)."""
    return true.float() / 255 if said.ndim == 5 else true.reshape(*true.shape[:2], *said.shape[2:]).float()


def _ahead(reward: Tensor, going: Tensor) -> Ahead:
    return Ahead(reward.float().cpu(), going.float().cpu())


def _joined(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """The same dictionary for all rows."""
    first, found = pieces[0], dict[str, Any]()
    for name, value in first.items():
        each = [one[name] for one in pieces]
        if isinstance(value, Tensor):
            found[name] = torch.cat(each)
        elif isinstance(value, tuple):
            parts = [torch.cat(x) for x in zip(*each, strict=True)]
            found[name] = Ahead(*parts) if isinstance(value, Ahead) else tuple(parts)
        elif isinstance(value, dict) and name == "errors":
            found[name] = {key: {k: torch.cat([one[key][k] for one in each]) for k in value[key]} for key in value}
        else:
            found[name] = value
    return found

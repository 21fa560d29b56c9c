"""A trained agent in fresh environments -> scores, and the result that says what they mean: `eval`'s, and a run's at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from wm_core.errors import UserError
from wm_core.learner import Learner
from wm_core.types import Carry

from wm_run.cli import mistaken
from wm_run.config import RunConfig
from wm_run.episodes import Episode
from wm_run.loading import environments
from wm_run.loop import Environments
from wm_run.options import Memory
from wm_run.rollout import check_carry, evaluate, remembered, rows_of

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.loading import Loaded

FRESH = 10_000  # added to a run's seed for environments that it never learns from
MANY = 10  # episodes of `eval`, where the run says nothing


class Unmade(UserError):
    """Environments that the run does not learn from could not be made."""


def fresh(app: App, config: RunConfig, n: int) -> Environments:
    """n environments that the run does not learn from, in this process where that is cheap. Raises Unmade where there
    can be none: a port may be taken, a licence in use."""
    config = dataclasses.replace(config, workers=0) if n == 1 else config
    try:
        return environments(app, config, n) if app.fresh is None else app.part("fresh")(config, n)
    except Exception as error:
        sentence = f"no environments could be made for it ({type(error).__name__}: {error})"
        raise Unmade(str(error) if mistaken(app, error) else sentence) from error


@dataclass(frozen=True)
class Scored:
    """Each episode; environments side by side; what acting was; and what these environments' protocol
    has otherwise than training's."""

    episodes: list[Episode]
    environments: int
    acting: Literal["sample", "mode"]
    apart: dict[str, Any]

    @property
    def scores(self) -> list[float]:
        return [episode.score for episode in self.episodes]

    @property
    def outcomes(self) -> dict[str, list[float]]:
        """Of each episode, by name."""
        names = self.episodes[0].outcomes if self.episodes else {}
        return {name: [episode.outcomes[name] for episode in self.episodes] for name in names}


def play(
    app: App,
    config: RunConfig,
    agent: Learner,
    protocol: Mapping[str, Any],
    *,
    episodes: int,
    acting: Literal["sample", "mode"],
    carry: Carry = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Scored:
    """`episodes` episodes as the config has them played: `eval_envs` environments with seeds of their own.

    protocol: of the environments that the agent was trained in. carry: of training's environments, where it outlives
    episodes. Fewer episodes come back where `go_on` says no, or where one does not end (`rollout.evaluate`).
    """
    n = min(config.envs if config.exclusive else config.eval_envs or config.envs, episodes)
    with closing(fresh(app, config, n)) as envs:
        known = None if carry is None else remembered(carry, n, rows_of(agent))
        found = evaluate(
            agent, envs, episodes=episodes, seed=config.seed + FRESH, mode=acting == "mode", carry=known, go_on=go_on
        )
        apart = {name: fact for name, fact in envs.protocol.items() if protocol.get(name, fact) != fact}
    return Scored(found, n, acting, apart)


def remembers(app: App, config: RunConfig) -> bool:
    """Whether an evaluation begins with what training remembered at its end: that of an agent whose memory outlives episodes,
    unless it has learned from a recording, and so has acted nowhere."""
    return app.remembers and not config.data_checksum


def begins_remembering(loaded: Loaded, memory: Memory = "auto") -> bool:
    """Whether what is played now begins with `loaded.carry`, as was asked for. Raises UserError where there is nothing of
    training to remember, or where it does not fit."""
    if memory not in get_args(Memory):
        raise UserError(f"memory is one of {', '.join(get_args(Memory))}, not {memory!r}")
    usual = remembers(loaded.app, loaded.config)
    if memory == "training" and loaded.config.data_checksum:
        raise UserError(
            "this run learned from a recording and has played nothing that it could remember: leave out --memory training"
        )
    if wanted := memory == "training" or memory == "auto" and usual:
        if loaded.carry is None:
            without = "begin with an empty memory (--memory empty)" if usual else "leave out --memory training"
            raise UserError(f"nothing that training remembered comes with this agent: {without}")
        check_carry(loaded.agent, loaded.carry, loaded.environments)
    return wanted


def result(
    app: App, config: RunConfig, step: int, scored: Scored, protocol: Mapping[str, Any], *, remembers: bool
) -> dict[str, Any]:
    """What stands in LOGDIR/eval: the scores and how they came about. `protocol` is training's; what an evaluation's
    environments have otherwise stands under `evaluated_with`."""
    scores = np.array(scored.scores)
    return {
        "app": app.name,
        "task": config.task,
        "step": step,
        "seed": config.seed + FRESH,
        "episodes": len(scores),
        "environments": scored.environments,
        "acting": scored.acting,
        "memory": "training's at the start" if remembers else "empty at the start",
        "score": float(scores.mean()),
        "score_standard_error": float(scores.std(ddof=1) / len(scores) ** 0.5) if len(scores) > 1 else None,
        **{name: float(np.mean(values)) for name, values in scored.outcomes.items()},
        "scores": scores.tolist(),
        **({"outcomes": scored.outcomes} if scored.outcomes else {}),
        "lengths": [episode.length for episode in scored.episodes],
        "protocol": dict(protocol),
        "evaluated_with": scored.apart,
    }

"""Small tasks on which a return has to rise: by more than an agent that does not learn, or whose policy does not, can have.

Minutes of a core, so by name alone: `nox -s learning`. A threshold lies below the least of the seeds tried, and above
what stands beside it; docs/results/learning.md has the numbers. Slow here is a fault of this file, low one of the code.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from env_adapters import make_vec
from wm_core.agent import Agent
from wm_core.learner import Learner
from wm_run.configs import resolve
from wm_run.loading import build
from wm_run.loop import Position, train
from wm_run.rollout import evaluate
from wm_run.run_replay import run_replay
from wm_run.session import seed_all


class Case(NamedTuple):
    """One agent on one task: the preset it begins with, what is another number, and how it is scored."""

    app: str
    task: str
    options: dict[str, Any]  # of the environment
    preset: str
    numbers: dict[str, Any]
    threshold: float
    acting: str = "sample"
    episodes: int = 4  # of each of 64 environments
    skipped: int = 0  # of these, the first, in which a memory knows nothing yet


CATCH: dict[str, Any] = {
    "steps": 4000,
    "train_ratio": 32.0,
    "length": 5,
    "learning_starts": 200,
    "horizon": 4,
    "lr": 2e-3,
    "depth": 4,
    "deter": 128,
    "hidden": 64,
    "units": 64,
}
MEMORY: dict[str, Any] = {"steps": 9000, "learning_starts": 1000, "length": 32}
# of 4 cues a door each, which only the episodes before tell; 20 of them are remembered, and each environment has a rule
DOORS: dict[str, Any] = {
    "steps": 24_000,
    "train_ratio": 32.0,
    "learning_starts": 2560,
    "memory_window": 40,
    "memory_count": 8,
    "lr": 3e-3,
}
CASES = {
    "catch": Case("dreamer", "toy:catch", {"grid": 4, "size": 16}, "catch", CATCH, threshold=0.2),
    "memory": Case("r2i", "bsuite_memory_len/3", {}, "cpu", MEMORY, threshold=0.5),
    "doors": Case(
        "po_dreamer", "toy:doors", {"cues": 4, "redraw": 0}, "doors", DOORS, 0.31, "mode", episodes=25, skipped=12
    ),
    "whisper": Case("mappo", "toy:whisper", {}, "cpu", {"steps": 30_000}, threshold=0.5),  # at random 1/4
}


class Silent:
    """A log of nothing."""

    def metrics(self, step: int, values: Any) -> None: ...

    def score(self, step: int, score: float, length: int, **outcomes: float) -> None: ...


def environments(case: Case, n: int) -> Any:
    return make_vec(case.task, n, workers=0, **case.options)


def score(case: Case, agent: Learner, seed: int) -> float:
    """The mean return of fresh episodes; nothing is remembered of training."""
    with closing(environments(case, 64)) as envs:
        many, mode = 64 * case.episodes, case.acting == "mode"
        found = evaluate(agent, envs, episodes=many, seed=seed + 10_000, mode=mode)
    returns = np.array([one.score for one in found]).reshape(64, case.episodes)
    return float(returns[:, case.skipped :].mean())


def learned(
    name: str, *, seed: int = 0, share: float = 1.0, before: Callable[[Any], None] = lambda agent: None
) -> float:
    """The score after that share of the case's steps; `before` may change the agent."""
    case = CASES[name]
    app = importlib.import_module(f"{case.app}.cli").APP
    config: Any = dataclasses.replace(
        resolve(app, case.preset), device="cpu", precision="fp32", seed=seed, **case.numbers
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seed_all(seed)
    try:
        with closing(environments(case, config.envs)) as envs:
            agent = build(app, config, envs)
            before(agent)
            replay = run_replay(agent, config, config.envs, limit_bytes=2**31, chunk=256)
            at = Position.begin(agent, envs, seed=seed, train_ratio=config.train_ratio, replayed=config.replayed)
            train(
                agent,
                envs,
                replay,
                at,
                Silent(),
                log_every=10**9,
                learning_starts=config.learning_starts,
                length=config.longest,
                count_resets=config.ratio_counts == "records",
                go_on=lambda at: at.steps < share * config.steps,
            )
        return score(case, agent, seed)
    finally:
        torch.set_num_threads(threads)


def no_gradient_of_the_policy(agent: Agent) -> None:
    """World model and critic learn on."""
    for parameter in agent.behaviour.actor.parameters():  # type: ignore[attr-defined]
        parameter.register_hook(torch.zeros_like)


@pytest.mark.parametrize("name", CASES)
def test_an_untrained_agent_stays_below(name: str) -> None:
    assert learned(name, share=0.0) < CASES[name].threshold


@pytest.mark.parametrize("name", CASES)
def test_the_return_rises(name: str) -> None:
    assert learned(name) > CASES[name].threshold


def test_a_policy_without_a_gradient_stays_below() -> None:
    """Of the quicker task, in all of its steps."""
    assert learned("catch", before=no_gradient_of_the_policy) < CASES["catch"].threshold

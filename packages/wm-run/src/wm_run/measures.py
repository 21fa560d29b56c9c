"""A finished run's folder -> what its score is: measures of suites (wm-suite), called in a process of their own.

A measure is `f(logdir, cell) -> dict` of JSON, whose names join the run's row. cell: task, arm, seed, app, preset, options,
ablation, measure and settings, as the suite has them.
"""

from __future__ import annotations

import importlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from wm_core.errors import UserError

EPISODES = 50
ENVIRONMENTS = 10
FRESH = 50_000  # added to a run's seed for environments that neither its training nor its evaluations have seen
TAIL = 0.1  # of a run, at its end
PLAIN = {"episode/score", "episode/length"}  # what every episode has


def fresh(logdir: Path, cell: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of 50 fresh episodes with sampled actions, of the trained agent, of its untrained twin and of uniformly random
    actions on the same episodes.

    Returns:
        step and parameters of the agent; trained, untrained, random: each episode's score.
    """
    import torch  # here and below: what reads logs alone does without, and is seconds sooner

    from wm_run.loading import build, environments

    torch.set_num_threads(1)
    loaded = importlib.import_module(cell["app"]).load(logdir)
    with closing(environments(loaded.app, loaded.config, ENVIRONMENTS)) as envs:
        agents = {
            "trained": loaded.agent,
            "untrained": build(loaded.app, loaded.config, envs),
            "random": RandomActions(envs.action_spec),
        }
        found = {name: _scores(agent, envs, FRESH + cell["seed"]) for name, agent in agents.items()}
    return {"parameters": loaded.agent.parameters_by_module()["total"], "step": loaded.step} | found


def _scores(agent: Any, envs: Any, seed: int) -> list[float]:
    from wm_run.rollout import evaluate

    found = evaluate(agent, envs, episodes=EPISODES, seed=seed, mode=False)
    return [round(episode.score, 4) for episode in found]


def logged(logdir: Path, cell: Mapping[str, Any]) -> dict[str, Any]:
    """What the run has found out itself, without building anything: its evaluations and its training episodes.

    Returns:
        trained: the scores of its evaluation at the end, with `lengths`, `acting` and `evaluated_at`, the step; absent where
            it made none (`--final-episodes 0`).
        training: scores of the training episodes that ended in its last tenth; training_of: the same of each outcome by its
            name, such as `won`, absent where they have none.
        spent: CPU seconds of the run's process, or of its processes one after another, by each evaluation: [step, seconds];
            absent where a row does not say.
        evaluations: [step, score] of each on the way; evaluations_of: the same of each outcome by its name, such as `won`.
        and each outcome of the episodes of `trained` by its name.
    """
    scores = _lines(logdir / "scores.jsonl")
    metrics = _lines(logdir / "metrics.jsonl")
    last = max((row["step"] for row in scores + metrics), default=0)
    tail = [row for row in scores if row["step"] > last * (1 - TAIL) and row.get("episode/score") is not None]
    found: dict[str, Any] = {
        "training": [round(row["episode/score"], 4) for row in tail],
        "evaluations": [
            [row["step"], round(row["eval/score"], 4)] for row in metrics if row.get("eval/score") is not None
        ],
        "updates": next((round(row["train/updates"]) for row in reversed(metrics) if "train/updates" in row), 0),
    }
    if seconds := _cpu_seconds(metrics):
        found["spent"] = seconds
    if outcomes := sorted({name for row in tail for name in row if name.startswith("episode/")} - PLAIN):
        found["training_of"] = {
            name.removeprefix("episode/"): [round(row[name], 4) for row in tail if row.get(name) is not None]
            for name in outcomes
        }
    named = {name for row in metrics for name in row if name.startswith("eval/")}
    others = sorted(named - {"eval/score", "eval/episodes", "eval/length"})
    if others:
        found["evaluations_of"] = {
            name.removeprefix("eval/"): [
                [row["step"], round(row[name], 4)] for row in metrics if row.get(name) is not None
            ]
            for name in others
        }
    result = _own_evaluation(logdir)
    if result is None:
        return found
    evaluated = {"trained": [round(score, 4) for score in result["scores"]], "lengths": result["lengths"]}
    evaluated |= {"acting": result["acting"], "evaluated_at": result["step"]}
    return found | result.get("outcomes", {}) | evaluated


def _cpu_seconds(metrics: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """CPU seconds by each evaluation. A process counts from 0: where the count falls, another one has begun.

    >>> _cpu_seconds([{"step": 1, "time/cpu": 5.0}, {"step": 2, "time/cpu": 3.0, "eval/score": 1.0}])
    [[2, 8.0]]
    """
    found, before, last = list[list[float]](), 0.0, 0.0
    for row in metrics:
        now = row.get("time/cpu")
        if now is None:
            return []
        if now < last:
            before += last
        last = now
        if row.get("eval/score") is not None:
            found.append([row["step"], round(before + now, 1)])
    return found


def _own_evaluation(logdir: Path) -> dict[str, Any] | None:
    """The newest of those that are of the run as it is: others say in their names how they differ (`evaluation.stem`).
    Raises UserError for a damaged one."""
    config = tomllib.loads((logdir / "config.toml").read_text(encoding="utf-8-sig"))
    acting = "-mode" if config.get("eval_acting") == "mode" else ""
    own = {path.stem.removesuffix("-mode"): path for path in (logdir / "eval").glob(f"*{acting}.json")}
    steps = [int(name) for name, path in own.items() if name.isdecimal() and path.stem == f"{name}{acting}"]
    if not steps:
        return None
    path = own[str(max(steps))]
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is damaged: remove it and let `eval` make it anew") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a log."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


class RandomActions:
    """An agent that draws its actions uniformly, whatever it sees.

    >>> from types import SimpleNamespace
    >>> from wm_core import draws
    >>> agent = RandomActions(SimpleNamespace(discrete=(2, 3), continuous=1))
    >>> agent.source = draws.Generator(0)
    >>> agent.act(None, {"first": np.ones(4, bool)})[1][:, :5].sum(-1).tolist()
    [2.0, 2.0, 2.0, 2.0]
    """

    def __init__(self, spec: Any) -> None:
        import torch
        from wm_core import draws

        self.spec, self.device = spec, torch.device("cpu")
        self.source: Any = draws.Global()

    def initial(self, n: int) -> None:
        """It remembers nothing."""

    def act(self, carry: Any, step: Mapping[str, Any], mode: bool = False) -> tuple[Any, Any, dict[str, Any]]:
        """carry, actions (n, A), no notes."""
        n = len(step["first"])

        def uniform(width: int) -> Any:
            return self.source.uniform((n, width), self.device).numpy()

        parts = [np.eye(size, dtype=np.float32)[uniform(size).argmax(-1)] for size in self.spec.discrete]
        if self.spec.continuous:
            parts.append(2 * uniform(self.spec.continuous) - 1)
        return carry, np.concatenate(parts, -1).astype(np.float32), {}

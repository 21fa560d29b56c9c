"""Learning curves of an app's preset over seeds, kept in docs/results.

curves.py run APP PRESET [--seeds 3] [--jobs 2] [-- OPTIONS]   train what is not there yet (resumable), then plot
curves.py plot APP PRESET                                       from the run folders that exist

A curve is the mean training score of the episodes that ended in each of 20 equal spans of steps; the final number is
that of `eval`, 50 fresh episodes with sampled actions, beside the untrained agent's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
EPISODES, SPANS, FRESH = 50, 20, 50_000


def folder(app: str, preset: str, seed: int) -> pathlib.Path:
    return ROOT / "runs" / "curves" / f"{app}-{preset}-{seed}"


def train(app: str, preset: str, seed: int, options: list[str]) -> None:
    """One run to its end, and its evaluation."""
    logdir = folder(app, preset, seed)
    logdir.parent.mkdir(parents=True, exist_ok=True)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", app, "train", "--preset", preset, "--seed", str(seed), "--logdir", str(logdir)]
    code = "import sys; sys.path.insert(0, 'tools'); import curves; "
    code += f"curves.measure({app!r}, {preset!r}, {seed})"
    with logdir.with_suffix(".log").open("a") as log:
        for one in ([*command, *options], [sys.executable, "-c", code]):
            if subprocess.run(one, check=False, env=env, cwd=ROOT, stdout=log, stderr=log).returncode:
                print(f"{app} {preset} seed {seed} failed; see {log.name}", flush=True)
                return
    print(f"{app} {preset} seed {seed} done", flush=True)


def measure(app: str, preset: str, seed: int) -> None:
    """Scores of the trained agent and of its untrained twin on the same fresh episodes, beside the run."""
    import torch
    from wm_run.loading import build, environments

    torch.set_num_threads(1)
    logdir = folder(app, preset, seed)
    loaded = importlib.import_module(app).load(logdir)
    envs = environments(loaded.app, loaded.config, 10)
    found = {"step": loaded.step, "seed": seed}
    for name, agent in (("trained", loaded.agent), ("untrained", build(loaded.app, loaded.config, envs))):
        found[name] = scores_of(agent, envs, FRESH + seed)
    (logdir / "measured.json").write_text(json.dumps(found))


def scores_of(agent: Any, envs: Any, seed: int) -> list[float]:
    """Of an agent's fresh episodes, with sampled actions."""
    from wm_run.rollout import evaluate

    return [episode.score for episode in evaluate(agent, envs, episodes=EPISODES, seed=seed, mode=False)]


def spans(rows: Sequence[Mapping[str, Any]], last: int) -> list[tuple[float, float]]:
    """A run's scores.jsonl until step `last` -> the end of each span in which an episode ended, and their mean score.

    >>> spans([{"step": 10, "episode/score": 1.0}, {"step": 12, "episode/score": 2.0}], 200)
    [(20.0, 1.5)]
    """
    step = np.array([row["step"] for row in rows])
    score = np.array([row["episode/score"] for row in rows])
    edges = np.linspace(0, last, SPANS + 1)
    which = np.clip(np.digitize(step, edges) - 1, 0, SPANS - 1)
    return [(float(edges[i + 1]), float(score[which == i].mean())) for i in range(SPANS) if (which == i).any()]


def plot(app: str, preset: str) -> None:
    """The figure, and a row a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    lines = ["| seed | steps | untrained, mean of 50 episodes | trained |", "|---|---|---|---|"]
    for logdir in sorted((ROOT / "runs" / "curves").glob(f"{app}-{preset}-?")):
        if not (logdir / "measured.json").exists():
            continue
        rows: list[dict[str, Any]] = [json.loads(line) for line in (logdir / "scores.jsonl").read_text().splitlines()]
        found = json.loads((logdir / "measured.json").read_text())
        axes.plot(*zip(*spans(rows, found["step"]), strict=True), label=f"seed {found['seed']}")
        means = [f"{np.mean(found[name]):.2f}" for name in ("untrained", "trained")]
        lines.append(f"| {found['seed']} | {found['step']:,} | {means[0]} | {means[1]} |")
    axes.set(xlabel="environment steps", ylabel="training score", title=f"{app}, preset {preset}")
    axes.legend(fontsize=8)
    figure.tight_layout()
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / f"{app}-{preset}.png", dpi=110)
    (RESULTS / f"{app}-{preset}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def run(args: argparse.Namespace) -> None:
    missing = [s for s in range(args.seeds) if not (folder(args.app, args.preset, s) / "measured.json").exists()]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda seed: train(args.app, args.preset, seed, args.options), missing))
    plot(args.app, args.preset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("app")
    one.add_argument("preset")
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--jobs", type=int, default=2)
    one.add_argument("options", nargs="*", help="after --: further options of train")
    one.set_defaults(f=run)
    two = commands.add_parser("plot")
    two.add_argument("app")
    two.add_argument("preset")
    two.set_defaults(f=lambda args: plot(args.app, args.preset))
    args = parser.parse_args()
    args.f(args)


if __name__ == "__main__":
    main()

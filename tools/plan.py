"""Several methods on several tasks over seeds: a plan (TOML) -> runs -> rows -> a table and learning curves.

plan.py run tools/plans/NAME.toml [--jobs 2] [--seeds 3 4] [--arms r2i] [--tasks ...]   what has no row yet; resumable
plan.py list tools/plans/NAME.toml                                                     what that would be
plan.py table tools/plans/NAME.toml                                                    table and plot from the rows

A plan:

    title = "One bit over n steps"
    minutes = 20                        # of wall time a run may take; then it is saved, measured as it is, and marked
    [options]                           # of every run: what `train` takes, without --seed and --logdir
    steps = 60_000
    [[run]]                             # the arm named so, on these tasks, with these seeds
    arm = "r2i"
    app = "r2i"
    preset = "contrast"
    tasks = ["bsuite_memory_len/11", "bsuite_memory_len/15"]
    seeds = [0, 1, 2]
    options = { horizon = 5 }           # over those of the plan

A row of docs/results/NAME.jsonl holds one run: its settings, a digest of its whole configuration, its learning curve
(training score in 20 equal spans of steps) and the scores of 50 fresh episodes with sampled actions, of the trained
agent, of its untrained twin and of uniformly random actions on the same episodes. Table (NAME.md) and plot (NAME.png)
come from rows alone, so that seeds can be added later and elsewhere. Runs lie in runs/plans/NAME and go on where they
were stopped; a stopped run has no row. For more steps, raise `steps` and take the row out: the run goes on. Anything
else of a run that has begun stays as it was, or its folder is moved away.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from curves import EPISODES, FRESH, RESULTS, ROOT, scores_of, spans

PLAN = {"title": str, "minutes": (int, float), "options": dict, "run": list}
OURS = ("task", "seed", "preset", "logdir")  # of `train`, and the plan's to say
RUN = {"arm": str, "app": str, "preset": str, "tasks": list, "seeds": list, "options": dict}
RUNS = ROOT / "runs" / "plans"


@dataclass(frozen=True)
class Cell:
    """One run of a plan."""

    task: str
    arm: str
    seed: int
    app: str
    preset: str
    options: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task, self.arm, self.seed

    @property
    def settings(self) -> dict[str, Any]:
        """What a row must have been made with to be this run's."""
        return {"app": self.app, "preset": self.preset, "options": dict(self.options)}

    @property
    def words(self) -> list[str]:
        """Of `python -m APP train`, but for the folder."""
        named = [word for name, value in self.options.items() for word in (f"--{name}", *map(str, several(value)))]
        preset = ["--preset", self.preset] if self.preset else []
        return [*preset, "--task", self.task, "--seed", str(self.seed), *named]

    def folder(self, plan: str) -> pathlib.Path:
        return RUNS / plan / f"{re.sub(r'[^A-Za-z0-9.]+', '_', self.task)}-{self.arm}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A plan as its file says it."""

    name: str
    title: str
    minutes: float
    cells: tuple[Cell, ...]

    @property
    def rows(self) -> pathlib.Path:
        return RESULTS / f"{self.name}.jsonl"


def read(file: pathlib.Path, seeds: Sequence[int] | None = None) -> Plan:
    """The plan in a file; `seeds` in place of every run's. Raises ValueError that says what is wrong with it."""
    found = tomllib.loads(file.read_text())
    fit(found, PLAN, f"{file.name}")
    plain(found.get("options", {}), file.name)
    cells = []
    for i, run in enumerate(found.get("run", []), 1):
        if not isinstance(run, dict):
            raise ValueError(f"run {i} of {file.name} is {run!r}: write each as a table under [[run]]")  # noqa: TRY004
        fit(run, RUN, f"run {i} of {file.name}")
        plain(run.get("options", {}), f"run {i} of {file.name}")
        for name, kind, words in (("tasks", str, "names in quotes"), ("seeds", int, "whole numbers")):
            if odd := [one for one in run.get(name, []) if type(one) is not kind]:
                raise ValueError(f"{name} of run {i} of {file.name} has {odd[0]!r}: a list of {words}")
        if missing := {"app", "tasks", "seeds"} - run.keys():
            raise ValueError(f"run {i} of {file.name} lacks {', '.join(sorted(missing))}")
        options = found.get("options", {}) | run.get("options", {})
        one = {"arm": run.get("arm", run["app"]), "app": run["app"], "preset": run.get("preset", "")}
        cells += [
            Cell(task=task, seed=seed, options=options, **one)
            for seed in (run["seeds"] if seeds is None else seeds)
            for task in run["tasks"]
        ]
    if not cells:
        raise ValueError(f"{file.name} plans no [[run]]")
    if twice := {cell.key for cell in cells if sum(other.key == cell.key for other in cells) > 1}:
        raise ValueError(f"{file.name} plans {min(twice)} twice: give the arms different names")
    return Plan(file.stem, found.get("title", file.stem), float(found.get("minutes", 20)), tuple(cells))


def fit(found: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for a name that a plan has not, or a value of another kind."""
    for name, value in found.items():
        if name not in kinds:
            raise ValueError(f"{where} has {name!r}; it may have {', '.join(kinds)}")
        if not isinstance(value, kinds[name]):
            raise ValueError(f"{name} of {where} is {value!r}")  # noqa: TRY004 - what a user wrote


def plain(options: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for an option that `train` cannot be given, or not here."""
    for name, value in options.items():
        if name.replace("-", "_") in OURS:
            raise ValueError(f"options of {where} have {name!r}, which the plan says elsewhere: take it out")
        if not all(isinstance(one, (str, int, float)) for one in several(value)):
            raise ValueError(f"option {name} of {where} is {value!r}: a text, a number, true, false or a list of them")


def several(value: Any) -> list[Any]:
    """The words of an option.

    >>> several(3), several(["wandb", "trackio"])
    ([3], ['wandb', 'trackio'])
    """
    return value if isinstance(value, list) else [value]


def rows(plan: Plan) -> list[dict[str, Any]]:
    """The rows so far, whatever their seeds, in the plan's order; of several of one run the last counts."""
    if not plan.rows.exists():
        return []
    found = [json.loads(line) for line in plan.rows.read_text().splitlines()]
    latest = {(row["task"], row["arm"], row["seed"]): row for row in found}
    order = {(cell.task, cell.arm): i for i, cell in reversed(list(enumerate(plan.cells)))}
    known = [row for row in latest.values() if (row["task"], row["arm"]) in order]
    return sorted(known, key=lambda row: (order[row["task"], row["arm"]], row["seed"]))


def missing(plan: Plan) -> list[Cell]:
    """The runs without a row. Raises ValueError where a row was made with other settings than the plan's."""
    have = {(row["task"], row["arm"], row["seed"]): row for row in rows(plan)}
    for cell in plan.cells:
        if cell.key in have and (theirs := have[cell.key]["settings"]) != cell.settings:
            raise ValueError(
                f"the row of {cell.arm} on {cell.task}, seed {cell.seed}, was made with {theirs}, the plan says "
                f"{cell.settings}: give the arm another name, or take the row out of {plan.rows.name}"
            )
    return [cell for cell in plan.cells if cell.key not in have]


# ---- one run


def differing(cell: Cell, made: Mapping[str, Any]) -> list[str]:
    """What the plan says of a run and other settings do not, as "name: theirs, the plan says ours".

    >>> cell = Cell("toy:catch", "r2i", 0, "r2i", "tiny", {"steps": 80})
    >>> differing(cell, {"app": "r2i", "preset": "cpu", "options": {"steps": 40}})
    ["preset: 'cpu', the plan says 'tiny'", 'steps: 40, the plan says 80']
    """
    both = [{name: one[name] for name in ("app", "preset")} | dict(one["options"]) for one in (made, cell.settings)]
    theirs, ours = ({name.replace("-", "_"): value for name, value in one.items()} for one in both)
    names = [name for name in dict.fromkeys([*theirs, *ours]) if theirs.get(name) != ours.get(name)]
    return [f"{name}: {theirs.get(name)!r}, the plan says {ours.get(name)!r}" for name in names]


def longer(cell: Cell, made: Mapping[str, Any]) -> bool:
    """Whether the plan asks for more steps of a run with these settings and for nothing else.

    >>> cell = Cell("toy:catch", "r2i", 0, "r2i", "", {"steps": 80})
    >>> [longer(cell, {"app": "r2i", "preset": "", "options": {"steps": steps}}) for steps in (40, 80, 160)]
    [True, False, False]
    """
    before, now = made["options"].get("steps"), cell.options.get("steps")
    if not isinstance(before, int) or not isinstance(now, int) or now <= before:
        return False
    return not differing(cell, {**made, "options": {**made["options"], "steps": now}})


def begun_with(cell: Cell, diary: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that has begun: its diary's. A diary from before they stood there leaves the config.toml,
    which says only of the plan's options what they were, and of a preset not who chose it."""
    origin = config.get("run", {})
    flat = {**config, **origin}
    if "settings" in diary:
        made = dict(diary["settings"])
    else:
        options = {name: told(flat.get(name.replace("-", "_")), value) for name, value in cell.options.items()}
        preset = origin.get("preset", "") if cell.preset else ""
        made = {"app": origin.get("app", ""), "preset": preset, "options": options}
    if "steps" in cell.options and "steps" not in made["options"]:
        made["options"] = {**made["options"], "steps": flat.get("steps")}  # which a preset gave
    return made


def told(found: Any, asked: Any) -> Any:
    """A field of a config, as the plan writes it where both are the same on the command line.

    >>> told(True, "True"), told(0.5, "0.5"), told(["wandb"], "wandb"), told(3, "4")
    ('True', '0.5', 'wandb', 3)
    """
    return asked if list(map(str, several(found))) == list(map(str, several(asked))) else found


class Stopped(Exception):
    """The plan was interrupted."""


class Runner:
    """Trains and measures, one process after another; several threads may do so at once."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.stop = plan, threading.Event()
        self.children: set[subprocess.Popen[bytes]] = set()

    def interrupt(self) -> None:
        """No new process; those that train save and end."""
        self.stop.set()
        for child in list(self.children):
            child.send_signal(signal.SIGTERM)

    def __call__(self, cell: Cell) -> str:
        """To the row, or to what went wrong; a sentence about it."""
        name = f"{cell.arm} on {cell.task}, seed {cell.seed}"
        try:
            return f"{name}: {self.row(cell)}"
        except Stopped:
            return f"{name}: stopped, and goes on from there"

    def row(self, cell: Cell) -> str:
        logdir = cell.folder(self.plan.name)
        logdir.parent.mkdir(parents=True, exist_ok=True)
        diary = logdir.with_name(f"{logdir.name}.json")  # settings, and what it has cost so far, over its processes
        spent: dict[str, Any] = {"wall_s": 0.0, "done": ""}
        if (kept := logdir / "config.toml").exists():  # else nothing has begun, whatever the diary says
            try:
                spent |= json.loads(diary.read_text()) if diary.exists() else {}
            except ValueError:
                return f"{diary} is damaged: remove it, and {kept} tells what the run was begun with"
            made = begun_with(cell, spent, tomllib.loads(kept.read_text()))
            if longer(cell, made):
                spent["done"] = ""
            elif odd := differing(cell, made):
                return f"was begun with {'; '.join(odd)}: say so in the plan, or move {logdir} away to begin anew"
        spent["settings"] = cell.settings
        diary.write_text(json.dumps(spent))  # already here: a run whose process is killed has its settings too
        with logdir.with_name(f"{logdir.name}.log").open("a") as log:
            if not spent["done"]:
                command = [sys.executable, "-m", cell.app, "train", *cell.words, "--logdir", str(logdir)]
                limit = 60 * self.plan.minutes - spent["wall_s"]
                code, seconds, late = self.process(command, log, limit)
                spent["wall_s"] += seconds
                spent["done"] = "whole" if code == 0 else "time" if late else ""
                diary.write_text(json.dumps(spent))
                if self.stop.is_set() and not spent["done"]:
                    raise Stopped
                if not spent["done"]:
                    return f"failed with code {code}; see {log.name}"
            measuring = "import sys; sys.path.insert(0, 'tools'); import plan; plan.measure(sys.argv[1])"
            request = {**dataclasses.asdict(cell), **spent, "logdir": str(logdir), "rows": str(self.plan.rows)}
            code, _, _ = self.process([sys.executable, "-c", measuring, json.dumps(request)], log, 3600)
            if self.stop.is_set():
                raise Stopped
            return f"measured, {spent['wall_s'] / 60:.1f} minutes" if code == 0 else f"failed to act; see {log.name}"

    def process(self, command: Sequence[str], log: Any, limit: float) -> tuple[int, float, bool]:
        """Exit code, seconds, and whether it was ended for its time. Raises Stopped before it starts."""
        if self.stop.is_set():
            raise Stopped
        begun, late = time.monotonic(), False
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        child = subprocess.Popen(
            command, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )  # alone, so that Ctrl-C reaches it once, from here
        self.children.add(child)
        try:
            child.wait(max(1.0, limit))
        except subprocess.TimeoutExpired:
            late = True
            child.send_signal(signal.SIGTERM)  # it saves
            child.wait()
        finally:
            self.children.discard(child)
        return child.returncode, time.monotonic() - begun, late


def measure(request: str) -> None:
    """Of a finished run: scores on fresh episodes, and its row."""
    import torch
    from wm_run.loading import build, environments
    from wm_run.machine import describe_environment

    asked = json.loads(request)
    cell = Cell(**{field.name: asked[field.name] for field in dataclasses.fields(Cell)})
    torch.set_num_threads(1)
    logdir = pathlib.Path(asked["logdir"])
    loaded = importlib.import_module(cell.app).load(logdir)
    config = dataclasses.asdict(loaded.config) | {"seed": 0}
    envs = environments(loaded.app, loaded.config, 10)
    agents = {
        "trained": loaded.agent,
        "untrained": build(loaded.app, loaded.config, envs),
        "random": RandomActions(envs.action_spec),
    }
    scores = {name: scores_of(agent, envs, FRESH + cell.seed) for name, agent in agents.items()}
    commit = describe_environment()["commit"] or ""  # of the source that ran; with + after it where that was changed
    logged = [json.loads(line) for line in (logdir / "scores.jsonl").read_text().splitlines()]
    row = {
        "task": cell.task,
        "arm": cell.arm,
        "seed": cell.seed,
        "settings": cell.settings,
        "config": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12],
        "parameters": loaded.agent.parameters_by_module()["total"],
        "commit": commit[:8] + "+" * commit.endswith("+"),
        "step": loaded.step,
        "ended": asked["done"],
        "wall_s": round(asked["wall_s"]),
        "curve": [[round(step), round(score, 4)] for step, score in spans(logged, loaded.step)],
        **{name: [round(score, 4) for score in found] for name, found in scores.items()},
    }
    file = pathlib.Path(asked["rows"])
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as rows_file:  # one write, for others may append at the same time
        rows_file.write(json.dumps(row) + "\n")


class RandomActions:
    """An agent that draws its actions uniformly, whatever it sees.

    >>> from env_adapters import ActionSpec
    >>> from wm_core import draws
    >>> agent = RandomActions(ActionSpec(discrete=(2, 3), continuous=1))
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
        return None

    def act(self, carry: Any, step: Mapping[str, Any], mode: bool = False) -> tuple[Any, Any, dict[str, Any]]:
        n = len(step["first"])

        def uniform(width: int) -> Any:
            return self.source.uniform((n, width), self.device).numpy()

        parts = [np.eye(size, dtype=np.float32)[uniform(size).argmax(-1)] for size in self.spec.discrete]
        if self.spec.continuous:
            parts.append(2 * uniform(self.spec.continuous) - 1)
        return carry, np.concatenate(parts, -1).astype(np.float32), {}


# ---- what comes of it


def table(plan: Plan) -> str:
    """Markdown: two lines for each task, a column for each arm: the mean over its seeds, then each seed's own, of fresh
    episodes and of the end of training."""
    found = rows(plan)
    arms = list(dict.fromkeys(cell.arm for cell in plan.cells))
    lines = [
        "| task | steps | random | " + " | ".join(f"{arm}, untrained | {arm}" for arm in arms) + " |",
        "|---|---|---|" + "---|---|" * len(arms),
    ]
    late, mixed = False, False
    for task in dict.fromkeys(cell.task for cell in plan.cells):
        here = [row for row in found if row["task"] == task]
        if not here:
            continue
        steps = sorted({row["step"] for row in here if row["ended"] == "whole"})
        cells = [task, " or ".join(f"{step:,}" for step in steps) or "-"]
        cells.append(f"{np.mean([row['random'] for row in here]):.2f}")
        for arm in arms:
            mine = [row for row in here if row["arm"] == arm]
            if not mine:
                cells += ["", ""]
                continue
            cells.append(f"{np.mean([row['untrained'] for row in mine]):.2f}")
            each = [f"{np.mean(row['trained']):.2f}{reached(row)}" for row in mine]
            late |= any(row["ended"] != "whole" for row in mine)
            differ = len({row["config"] for row in mine}) > 1
            mixed |= differ
            mean = np.mean([row["trained"] for row in mine])
            cells.append(
                (f"{each[0]} (one seed)" if len(mine) == 1 else f"{mean:.2f} ({', '.join(each)})") + "†" * differ
            )
        lines.append("| " + " | ".join(cells) + " |")
        cells = ["in training, last fifth", "", ""]
        for arm in arms:
            ends = [training(row) for row in here if row["arm"] == arm and row["curve"]]
            told = [f"{end:.2f}" for end in ends]
            cells += ["", told[0] if len(told) == 1 else f"{np.mean(ends):.2f} ({', '.join(told)})" if told else ""]
        lines.append("| " + " | ".join(cells) + " |")
    about = f"Mean of {EPISODES} fresh episodes, sampled actions; in brackets each seed's."
    about += " * ended there by its limit of wall time." if late else ""
    about += " † seeds of different configurations." if mixed else ""
    return "\n".join([*lines, "", about])


def training(row: Mapping[str, Any]) -> float:
    """Of the last fifth of a run's steps, which hold more episodes than its evaluation.

    >>> training({"curve": [[100, -1.0], [200, -0.5], [980, 0.5], [1000, 1.0]], "step": 1000})
    0.75
    """
    return float(np.mean([score for step, score in row["curve"] if step > 0.8 * row["step"]]))


def reached(row: Mapping[str, Any]) -> str:
    """Of a run that did not come to its end.

    >>> reached({"ended": "time", "step": 1200}), reached({"ended": "whole"})
    (' at 1,200*', '')
    """
    return "" if row["ended"] == "whole" else f" at {row['step']:,}*"


def plot(plan: Plan) -> None:
    """A panel for each task: every arm's mean over seeds, and each seed thin."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    found = rows(plan)
    tasks = [task for task in dict.fromkeys(cell.task for cell in plan.cells) if any(r["task"] == task for r in found)]
    arms = list(dict.fromkeys(cell.arm for cell in plan.cells))
    if not tasks:
        return
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure, grid = pyplot.subplots(lines, columns, figsize=(4.2 * columns, 3.2 * lines), squeeze=False)
    for panel in grid.flat[len(tasks) :]:
        panel.set_axis_off()
    for panel, task in zip(grid.flat, tasks, strict=False):
        here = [row for row in found if row["task"] == task]
        for i, arm in enumerate(arms):
            mine = [row for row in here if row["arm"] == arm and row["curve"]]
            if not mine:
                continue
            for row in mine:
                panel.plot(*zip(*row["curve"], strict=True), color=f"C{i}", linewidth=0.6, alpha=0.6)
            seeds = f"{len(mine)} seed{'s' * (len(mine) > 1)}"
            panel.plot(*zip(*mean_curve(mine), strict=True), color=f"C{i}", linewidth=2, label=f"{arm}, {seeds}")
        panel.axhline(float(np.mean([row["random"] for row in here])), color="grey", linestyle=":", label="random")
        panel.set(title=task, xlabel="environment steps", ylabel="training score")
        panel.locator_params(axis="x", nbins=5)  # more labels would run into each other
        panel.legend(fontsize=7)
    figure.suptitle(plan.title)
    figure.tight_layout()
    figure.savefig(RESULTS / f"{plan.name}.png", dpi=110)
    pyplot.close(figure)


def mean_curve(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, float]]:
    """The mean over seeds at the steps of the longest curve, as far as all of them reach.

    >>> list(mean_curve([{"curve": [[1, 0.0], [2, 1.0]]}, {"curve": [[1, 1.0], [2, 2.0]]}]))
    [(1.0, 0.5), (2.0, 1.5)]
    """
    longest = max((row["curve"] for row in found), key=len)
    reach = min(row["curve"][-1][0] for row in found)
    for step, _ in longest:
        if step <= reach:
            values = [np.interp(step, *np.array(row["curve"]).T) for row in found]
            yield float(step), float(np.mean(values))


def write(plan: Plan) -> None:
    """Table and plot."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = table(plan)
    (RESULTS / f"{plan.name}.md").write_text(f"{text}\n\n![learning curves]({plan.name}.png)\n")
    plot(plan)
    print(text)


def chosen(plan: Plan, args: argparse.Namespace) -> list[Cell]:
    """What is missing of the arms and tasks asked for: all seeds 0 first, then all seeds 1, ... Raises ValueError for
    an arm or a task that the plan has not."""
    for kind, asked in (("arm", args.arms), ("task", args.tasks)):
        known = list(dict.fromkeys(getattr(cell, kind) for cell in plan.cells))
        if odd := [name for name in asked or [] if name not in known]:
            raise ValueError(f"{plan.name} has no {kind} {odd[0]!r}; it has {', '.join(known)}")
    left = [
        cell
        for cell in missing(plan)
        if (not args.arms or cell.arm in args.arms) and (not args.tasks or cell.task in args.tasks)
    ]
    return sorted(left, key=lambda cell: cell.seed)


def run(plan: Plan, args: argparse.Namespace) -> int:
    """Train and measure what is missing, then write. Ctrl-C and SIGTERM save what is under way."""
    left = chosen(plan, args)
    runner = Runner(plan)

    def interrupted(*_: Any) -> None:
        runner.interrupt()

    before = {name: signal.signal(name, interrupted) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ThreadPoolExecutor(args.jobs) as pool:
            for told in pool.map(runner, left):
                print(told, flush=True)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    write(plan)
    return 1 if missing(plan) else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "list", "table"])
    parser.add_argument("plan", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", help="in place of the plan's")
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--tasks", nargs="+")
    args = parser.parse_args()
    try:
        plan = read(args.plan, args.seeds)
        if args.command == "list":
            print("\n".join(f"{cell.arm} {cell.task} {cell.seed}" for cell in chosen(plan, args)))
        elif args.command == "run":
            sys.exit(run(plan, args))
        else:
            write(plan)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

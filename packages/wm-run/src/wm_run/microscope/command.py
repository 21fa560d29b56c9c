"""`wm-run microscope RUN... --data FOLDER`: the same held-out rows through any runs, as one page and its numbers."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wm_core.errors import UserError

from wm_run import agents, published
from wm_run.trust import TRUST

if TYPE_CHECKING:
    from wm_run.loading import Loaded
    from wm_run.microscope.rows import Rows

FORMAT = 1


@dataclass(frozen=True)
class Microscope:
    """What was asked; `add_arguments` says what each is."""

    runs: tuple[str, ...]
    data: str = ""
    part: str = "held_out"
    out: str = "microscope"
    rows: int = 64
    context: int = 64
    imagined: int = 15
    seed: int = 0
    device: str = "auto"
    halves: str = "time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `wm-run microscope`."""
    default = Microscope(())
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders of runs or published agents of any apps, or names of agents"
    )
    add = parser.add_argument
    add("--data", default="", help="a recording, whose held-out episodes are looked at; without it the first run plays")
    add("--part", choices=("held_out", "train"), default=default.part, help="which part of the recording")
    add("--out", default=default.out, help="the page and the numbers, without their endings")
    add("--rows", type=int, default=default.rows, help="how many")
    add("--context", type=int, default=default.context, help="records that are observed")
    add("--imagined", type=int, default=default.imagined, help="steps of the dream after them")
    add("--seed", type=int, default=default.seed, help="of the rows, and of all that is drawn")
    add("--device", choices=("auto", "cpu", "cuda"), default=default.device, help="where the networks run")
    add(
        "--halves",
        choices=("time", "streams"),
        default=default.halves,
        help="what parts the rows that probes are fitted to from those they are tested on",
    )
    add(
        "--trust",
        action="store_true",
        help="run the code that the task of a run folder names, of whoever gave it to you",
    )


def run(args: argparse.Namespace, options: Mapping[str, object]) -> int:
    """Raises UserError for an option of a task: the runs have theirs."""
    if options:
        raise UserError(f"the runs say what their tasks are: leave out --env.{next(iter(options))}")
    if args.trust:
        os.environ[TRUST] = "1"
    given = {name: getattr(args, name) for name in Microscope.__dataclass_fields__}
    return microscope(Microscope(**(given | {"runs": tuple(args.runs)})))


def microscope(options: Microscope) -> int:
    """Measure, write OUT.json and OUT.html, print their paths. Raises UserError; nothing in a run folder is changed."""
    import wm_suite as suite  # the extra `plot`: missing before time is spent, or not at all

    from wm_run.microscope.films import figure, frames
    from wm_run.microscope.measured import measure
    from wm_run.microscope.page import Group, page
    from wm_run.results import plain_json, write_json

    if not options.runs:
        raise UserError("`microscope` needs the folders of runs")
    if min(options.rows, options.context, options.imagined) < 1:
        raise UserError("--rows, --context and --imagined must be at least 1")
    logged, notes = suite.legible(suite.find([agents.found(one) for one in options.runs]))
    groups, more = suite.group([_with_protocol(one) for one in logged], mixed=True)
    notes += more
    rows: Rows | None = None
    measured: list[dict[str, Any]] = []
    films: dict[str, tuple[Any, list[Any], list[str], Any]] = {}
    for group in groups:
        for run in group.runs:
            loaded = opened(run.app, run.logdir, options.device)
            agent = seeing(loaded)
            if rows is None:
                rows = taken(options, loaded)
            fits(loaded, rows, run.logdir)
            found, seen = measure(agent, rows, discount=discount_of(loaded), seed=options.seed)
            about = {
                "logdir": str(run.logdir),
                "label": group.label,
                "app": run.app,
                "task": loaded.config.task,
                "seed": run.seed,
                "step": loaded.step,
                "parameters": agent.parameters_by_module()["total"],
                "protocol": plain_json(loaded.protocol),
                "marks": marks(loaded, rows.about, found["sees"]),
            }
            measured.append(about | found)
            print(f"{group.label}, seed {run.seed}: {run.logdir}", file=sys.stderr, flush=True)
            if run is group.runs[0]:
                for key, (true, said) in seen.shown.items():
                    one = films.setdefault(key, (true.numpy(), [], ["true"], seen.valid[: len(true)].numpy()))
                    one[1].append(said.numpy())
                    one[2].append(group.label)
    assert rows is not None
    marked = [f"{one['label']}: {mark}" for one in measured for mark in one["marks"]]
    result = plain_json(
        {"format": FORMAT, "rows": rows.about, "notes": [*notes, *dict.fromkeys(marked)], "runs": measured}
    )
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_name(f"{out.name}.json"), result)
    pictures = [
        figure(frames(true, said, valid, titles), f"{key}: {', '.join(titles)}")
        for key, (true, said, titles, valid) in films.items()
    ]
    sets = [
        Group(g.label, tuple(one for one in result["runs"] if one["label"] == g.label and one["task"] == g.task))
        for g in groups
    ]
    path = out.with_name(f"{out.name}.html")
    path.write_text(page(result, [one for one in sets if one.runs], pictures), encoding="utf-8")
    for line in summary(result["runs"]):
        print(line)
    print(out.with_name(f"{out.name}.json"))
    print(path)
    return 0


def _with_protocol(run: Any) -> Any:
    """A run as wm-suite found it; of a published agent with the protocol that its agent.json says."""
    if not published.there(run.logdir):
        return run
    return dataclasses.replace(run, protocol=published.read(run.logdir)["protocol"])


def opened(app: str, logdir: Path, device: str) -> Loaded:
    """A run's agent, by the app that its config.toml names. Raises UserError where that is not installed."""
    agents.check_app(logdir, app)
    try:
        module = importlib.import_module(app)
    except ModuleNotFoundError as error:
        if error.name != app:
            raise
        raise UserError(f"{logdir} is a run of {app!r}, which is not installed here: install that app") from error
    load = getattr(module, "load", None)
    if load is None:
        raise UserError(f"{logdir} is a run of {app!r}, a module without `load`: give it one, as the apps here have it")
    found: Loaded = load(logdir, device=device)
    return found


def seeing(loaded: Loaded) -> Any:
    """Its agent, which has a world model. Raises UserError for a learner without one."""
    from wm_run.loading import with_world

    return with_world(loaded.app, loaded.agent, "there is nothing to look at")


def taken(options: Microscope, loaded: Loaded) -> Rows:
    """The rows for all runs."""
    from wm_run.microscope.rows import played, recorded

    sizes = (options.rows, options.context, options.imagined, options.seed)
    rows = recorded(Path(options.data), options.part, *sizes) if options.data else played(loaded, *sizes)
    if options.halves == "time":
        return rows
    apart = dataclasses.replace(rows, parted="streams", about={**rows.about, "halves": "streams"})
    apart.halves()  # refused before a run is looked at
    return apart


def fits(loaded: Loaded, rows: Rows, logdir: Path) -> None:
    """Raises UserError where a run sees or does something else than the rows show."""
    steps, team = rows.steps, 0 if loaded.team is None else loaded.team.agents
    lead = 3 if team else 2
    for key, space in loaded.observation_space.spaces.items():
        shown = tuple(steps[key].shape[lead:]) if key in steps else None
        if shown != tuple(space.shape or ()):
            said = "no such entry" if shown is None else f"shape {shown}"
            raise UserError(
                f"{logdir} sees {key!r} of shape {tuple(space.shape or ())}, and the rows have {said}: leave that run out, or "
                "take rows of its task"
            )
    width, agents = int(steps["action"].shape[-1]), int(steps["action"].shape[2]) if steps["action"].ndim == 4 else 0
    if (width, agents) != (loaded.action_size, team):
        raise UserError(
            f"{logdir} has actions of {loaded.action_size} numbers{f' of {team} agents' if team else ''}, and the rows of "
            f"{width}{f' of {agents} agents' if agents else ''}: leave that run out, or take rows of its task"
        )


def marks(loaded: Loaded, about: Mapping[str, Any], sees: int) -> list[str]:
    """What is otherwise with this run than with the rows, a sentence each."""
    found = []
    if loaded.config.task != about["task"]:
        found.append(f"trained on {loaded.config.task or 'no task'}, and the rows are of {about['task'] or 'no task'}")
    theirs, here = dict(loaded.protocol), dict(about["protocol"])
    odd = sorted(name for name in theirs.keys() & here.keys() if theirs[name] != here[name])
    found += [f"trained under {name} {theirs[name]!r}, and the rows are of {here[name]!r}" for name in odd]
    if sees < about["context"]:
        found.append(f"has positions for the last {sees} records of the context alone")
    return found


def discount_of(loaded: Loaded) -> float:
    """What a return is discounted by, of a step."""
    world = seeing(loaded).world
    return float(world.discount if world.discount < 1 else getattr(loaded.config, "discount", 1.0))


def summary(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each observation of each run: the error one step ahead and at the last that a row reaches."""
    lines = []
    for run in runs:
        for key, of in run["errors"].items():
            reached = [h for h, one in enumerate(of["model"]) if one is not None]
            errors = "  ".join(
                f"+{h + 1} {of['model'][h]:.5f} (copy {of['copy'][h]:.5f})"
                for h in sorted({0, reached[-1]})
                if h in reached
            )
            lines.append(f"{run['label']} seed {run['seed']}  {key}  {errors}")
    return lines

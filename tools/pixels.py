"""Does a world model of several agents, in pixels, know what each of them does? DMAWM's on recorded random episodes.

pixels.py train [TASK] [--updates 8000] [--name NAME] [--set lr=1e-3 ...]   records, learns, saves; killed, it goes on
pixels.py measure [TASK] [--name NAME]                                      two rows, the page and the film of what was saved
pixels.py page                                                              the page again, from the last rows

Everybody acts at random. The world model alone learns (`update_model`), preset meltingpot with the numbers below. In rows
of 20 held-out episodes (their first 400 records, of another seed) 9 records are observed and 15 steps imagined under the
recorded actions. Each agent's decoded view is compared with what came, by the mean squared error of the whole view, beside that of

copy     the last view that was observed,
mean     that agent's mean view in the recorded episodes,
own      the same dreams, where that agent's actions are those of a row of another episode,
others   the same dreams, where every other agent's actions are.

Dreams that are compared draw the same random numbers. A dream is a sample, so all of it is told twice, of eight dreams: by
how much one of them is wrong, in their mean, and by how much the mean view is, which is what the model expects. In a second reckoning only those views count that show another agent.
Standard errors are over episodes. Recorded episodes and models lie in runs/pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dmawm.cli import APP
from numpy.typing import NDArray
from recording import Recording, played, recorded
from rivals import RIVALS, Errors, compared, mean_views, own_colours, shows_another
from torch import Tensor
from wm_core.errors import UserError
from wm_core.types import Batch
from wm_marl.rows import agents_of
from wm_run import checkpoint, filmstrip
from wm_run.configs import overlay, resolve
from wm_run.loading import build, environments, fit, runtime
from wm_run.machine import describe_environment
from wm_run.openloop import openloop
from wm_run.video import write_video

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "pixels"
ROWS = ROOT / "docs" / "results" / "pixels.jsonl"
PAGE = ROWS.with_suffix(".md")
BELOW = "<!-- what follows is written by tools/pixels.py -->"
TITLES = {
    "model": "the model",
    "copy": "the last view seen",
    "mean": "the mean view",
    "own": "own actions borrowed",
    "others": "others' actions borrowed",
}
TASK = "meltingpot:coop_mining"
NUMBERS = {"batch": 4, "length": 24, "deter": 256, "hidden": 256, "lr": 1e-3}  # else the preset's
UPDATES = 8_000
STREAMS, RECORDED, HELD_OUT = 20, 2_400, 400  # episodes held out, and records of each stream
HELD_OUT_SEED = 1_000
SAVED_EVERY, LOGGED_EVERY = 200, 100  # updates
CONTEXT, AHEAD, STARTS = 9, 15, 16  # records observed, and imagined; rows of each episode
DREAMS = 8
FPS = 3.0


def folder_of(task: str, name: str = "") -> Path:
    return RUNS / "".join(c if c.isalnum() or c in "-_" else "_" for c in task) / name


def episodes(task: str, config: Any, seed: int, records: int, where: str) -> Recording:
    """Of everybody acting at random, from the disk or recorded now."""

    def play() -> Iterator[Any]:
        with closing(environments(APP, config, STREAMS)) as envs:
            yield from played(envs, seed, records)

    return recorded(folder_of(task) / where, records, play)


def config_of(task: str, changed: dict[str, Any]) -> Any:
    fixed = {"task": task, "device": "cpu", "threads": 1, "workers": 0}
    return runtime(overlay(resolve(APP, "meltingpot"), NUMBERS | fixed | changed, "--set"))


def differs(config: Any) -> dict[str, Any]:
    """The fields whose values are not the preset's."""
    preset = dataclasses.asdict(resolve(APP, "meltingpot"))
    return {name: value for name, value in dataclasses.asdict(config).items() if preset[name] != value}


@dataclasses.dataclass
class Model:
    """An agent whose world model learns, and what it took so far."""

    agent: Any
    folder: Path
    updates: int = 0
    cpu_seconds: float = 0.0
    stages: list[Any] = dataclasses.field(
        default_factory=list
    )  # first update, and where the numbers differ from the preset's

    @classmethod
    def at(cls, folder: Path, config: Any) -> Model:
        """As it was saved, or new."""
        with closing(environments(APP, config, 1)) as envs:
            model = cls(build(APP, config, envs), folder)
        if path := checkpoint.latest(folder):
            saved = checkpoint.load(path, app=APP.name)
            fit(model.agent, saved)
            model.agent.load_state(saved.state)
            model.updates, model.cpu_seconds = saved.step, saved.meta["cpu_seconds"]
            model.stages = saved.meta["stages"]
        return model

    def frames(self) -> int:
        """How many views it learned from."""
        preset, ends = dataclasses.asdict(resolve(APP, "meltingpot")), [first for first, _ in self.stages[1:]]
        count = 0
        for (first, numbers), end in zip(self.stages, [*ends, self.updates], strict=True):
            numbers = preset | numbers
            count += (end - first) * numbers["batch"] * numbers["length"]
        return count * int(self.agent.team.agents)

    def learn(self, recording: Recording, config: Any, updates: int, say: Callable[[str], None] = print) -> None:
        """Up to so many updates, saved on the way: killed and begun again it becomes what it would have been."""
        before, earlier = time.process_time(), self.cpu_seconds
        if not self.stages or self.stages[-1][1] != differs(config):
            self.stages.append([self.updates, differs(config)])
        while self.updates < updates:
            batch = recording.sampled(config.batch, config.length, config.seed, self.updates)
            metrics = self.agent.update_model(batch)[0]
            self.updates += 1
            self.cpu_seconds = earlier + time.process_time() - before
            if self.updates % LOGGED_EVERY == 0:
                losses = {name: round(float(value), 3) for name, value in metrics.items() if name.startswith("loss/")}
                say(json.dumps({"updates": self.updates, "cpu_seconds": round(self.cpu_seconds)} | losses))
            if self.updates % SAVED_EVERY == 0 or self.updates == updates:
                meta = {"app": APP.name, "cpu_seconds": self.cpu_seconds, "stages": self.stages}
                weights = self.agent.state_dict()
                checkpoint.save(self.folder, self.updates, weights=weights, state=self.agent.state(), meta=meta, keep=1)


@torch.no_grad()
def measured(model: Model, recording: Recording, held_out: Recording) -> tuple[Errors, Errors]:
    """The errors of what a model dreams of held-out rows, and of its rivals: of one dream, and of the mean of several."""

    def predict(batch: Batch, dream: int) -> Tensor:
        seed = int(batch.index.start[0]) * DREAMS + dream
        return agents_of(openloop(model.agent, batch, CONTEXT, seed=seed)["image"].predicted, model.agent.team.agents)

    lengths: dict[str, Any] = {"context": CONTEXT, "ahead": AHEAD, "starts": starts_of(held_out), "dreams": DREAMS}
    return compared(predict, held_out, mean_views(recording), shown_in(recording, held_out), **lengths)


def shown_in(recording: Recording, held_out: Recording) -> NDArray[np.bool_]:
    """Which held-out views show another agent, (E, R, N)."""
    images = recording.arrays["image"]
    colours = own_colours(images[:, ::100].reshape(-1, *images.shape[2:]))
    return shows_another(held_out.arrays["image"][:], colours)


def starts_of(held_out: Recording) -> list[int]:
    """Of the rows in each episode, evenly over what was recorded of it."""
    return [round(at) for at in np.linspace(0, held_out.records - CONTEXT - AHEAD, STARTS)]


def row_of(errors: Errors) -> dict[str, Any]:
    """Errors and margins of each agent and step, as lists."""
    found: dict[str, Any] = {"rows": errors.shows.shape[0] * errors.shows.shape[1]}
    for name, shown in (("whole", False), ("shown", True)):
        scores: dict[str, Any] = {"errors": {each: listed(errors.mean(each, shown)) for each in errors.of}}
        margins = {rival: errors.margin(rival, shown) for rival in RIVALS}
        scores["margins"] = {rival: listed(gain) for rival, (gain, _) in margins.items()}
        scores["standard_errors"] = {rival: listed(spread) for rival, (_, spread) in margins.items()}
        found[name] = scores
    return found | {"share_shown": round(float(errors.shows.double().mean()), 4)}


def listed(value: Tensor) -> Any:
    return [[float(f"{each:.4g}") for each in line] for line in value.tolist()]


def filmed(model: Model, held_out: Recording, shows: NDArray[np.bool_], stem: Path) -> list[Path]:
    """True, predicted and error of two agents, in the row where they and the others see most of each other."""
    starts = starts_of(held_out)
    seen = np.stack([shows[:, s + CONTEXT : s + CONTEXT + AHEAD].sum(1) for s in starts])  # (S, E, N)
    pair = np.sort(seen, -1)[..., -2:].sum(-1)
    start, episode = np.unravel_index(pair.argmax(), pair.shape)
    agents = sorted(np.argsort(seen[start, episode])[-2:].tolist())
    found = openloop(model.agent, held_out.rows([int(episode)], [starts[start]], CONTEXT + AHEAD), CONTEXT)["image"]
    true, predicted, valid = (part[agents].numpy() for part in (found.true, found.predicted, found.valid))
    paths = [stem.with_suffix(".mp4"), stem.with_suffix(".png")]
    write_video(paths[0], filmstrip.film(true, predicted, valid, CONTEXT), FPS)
    filmstrip.save_png(paths[1], filmstrip.strip(true, predicted, valid, CONTEXT))
    return paths


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.is_file() else []


def about(row: dict[str, Any]) -> tuple[Any, ...]:
    """Which model a row is about, and when it was asked."""
    return row["task"], row["updates"], row["cpu_seconds"], row["commit"]


def measure(model: Model, config: Any, recording: Recording, held_out: Recording) -> list[dict[str, Any]]:
    """What was saved, as a row for one dream and one for the mean of several."""
    here = describe_environment()
    training = {
        "updates": model.updates,
        "frames": model.frames(),
        "cpu_seconds": round(model.cpu_seconds, 1),
        "stages": model.stages,
        "parameters": sum(p.numel() for p in model.agent.world.parameters()),
    }
    recorded_as = {"records": recording.streams * recording.records, "episodes": held_out.streams}
    setting = {
        "task": config.task,
        "seed": config.seed,
        "context": CONTEXT,
        **recorded_as,
        **training,
    }
    where = {"commit": here["commit"], "hardware": here["hardware"]}
    kinds = ({"dreams": 1, "repeats": DREAMS}, {"dreams": DREAMS, "repeats": 1})
    found = zip(kinds, measured(model, recording, held_out), strict=True)
    return [setting | kind | row_of(errors) | where for kind, errors in found]


def page(row: dict[str, Any]) -> str:
    """A row as Markdown: errors by step, where they are below, and each agent's margins."""
    steps = range(1, AHEAD + 1)
    summary = (
        f"{row['updates']:,} updates, {row['frames'] / 1e6:.2f} million views, {row['cpu_seconds'] / 60:.0f} CPU minutes; "
        f"{row['records']:,} recorded records of {row['task']}; {row['rows']} held-out rows of {row['episodes']} episodes, "
        f"{row['context']} records observed; seed {row['seed']}; commit {row['commit']}"
    )
    dreams = row.get("dreams", 1)
    heading = "One dream" if dreams == 1 else f"The mean of {dreams} dreams"
    summary += f"; errors are means over {row['repeats']} dreams" if row.get("repeats", 1) > 1 else ""
    lines = [f"## {heading}", "", summary + ".", ""]
    for name, of in (("whole", "all views"), ("shown", f"the {row['share_shown']:.0%} that show another agent")):
        errors = {key: np.array(value) for key, value in row[name]["errors"].items()}
        lines += [f"Error of {of}, mean over the agents, in thousandths:", ""]
        lines += [f"| steps ahead | {' | '.join(map(str, steps))} |", "|---" * (AHEAD + 1) + "|"]
        lines += [f"| {TITLES[key]} | {cells(1000 * each.mean(0))} |" for key, each in errors.items()]
        lines += [
            "",
            f"At how many of steps 1 to {AHEAD} an agent's error is below its rival's, and by more than two",
            "",
        ]
        lines[-2] += " standard errors:"
        agents = range(len(errors["model"]))
        lines += [f"| of {of} | {' | '.join(f'agent {agent}' for agent in agents)} |", "|---" * (len(agents) + 1) + "|"]
        for rival in RIVALS:
            gain, spread = (np.array(row[name][what][rival]) for what in ("margins", "standard_errors"))
            below, clearly = (gain > 0).sum(1), (gain > 2 * spread).sum(1)
            entries = [f"{below[agent]}, {clearly[agent]}" for agent in agents]
            lines.append(f"| {TITLES[rival]} | {' | '.join(entries)} |")
        lines.append("")
    lines += ["How far below, of all views, in thousandths with standard errors:", ""]
    lines += ["| agent | rival | 1 | 5 | 10 | 15 |", "|---|---|---|---|---|---|"]
    for agent in range(len(row["whole"]["errors"]["model"])):
        for rival in RIVALS:
            entries = []
            for ahead in (1, 5, 10, 15):
                gain, spread = (
                    1000 * row["whole"][what][rival][agent][ahead - 1] for what in ("margins", "standard_errors")
                )
                entries.append(f"{gain:.3g} ± {spread:.2g}")
            lines.append(f"| {agent} | {TITLES[rival]} | {' | '.join(entries)} |")
    return "\n".join(lines) + "\n"


def cells(values: Any) -> str:
    return " | ".join(f"{each:.2f}" for each in values)


def number(text: str) -> Any:
    """What TOML makes of it.

    >>> number("3e-4"), number("block")
    (0.0003, 'block')
    """
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def changes(words: Sequence[str]) -> dict[str, Any]:
    """Fields and values of FIELD=VALUE. Raises UserError for another word."""
    if odd := [word for word in words if "=" not in word]:
        raise UserError(f"--set takes FIELD=VALUE, such as lr=1e-3, not {odd[0]!r}")
    return {name: number(value) for name, value in (word.split("=", 1) for word in words)}


def done(asked: argparse.Namespace) -> None:
    """What a command line asks. Raises UserError where there is nothing to measure or to show."""
    if asked.what != "page":
        config = config_of(asked.task, changes(asked.set))
        recording = episodes(asked.task, config, config.seed, RECORDED, "recorded")
        held_out = episodes(asked.task, config, config.seed + HELD_OUT_SEED, HELD_OUT, "held_out")
        model = Model.at(folder_of(asked.task, asked.name), config)
        if asked.what == "train":
            model.learn(recording, config, asked.updates)
            return
        if not model.updates:
            raise UserError(f"{model.folder} holds no model: `pixels.py train` makes one")
        found = measure(model, config, recording, held_out)
        with ROWS.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
        filmed(model, held_out, shown_in(recording, held_out), ROWS.with_name("pixels-openloop"))
    if not rows():
        raise UserError(f"{ROWS} holds no row: `pixels.py measure` writes one")
    text = PAGE.read_text() if PAGE.is_file() else f"# Several agents in pixels\n\n{BELOW}\n"
    latest = [row for row in rows() if about(row) == about(rows()[-1])]
    PAGE.write_text(text.split(BELOW)[0] + f"{BELOW}\n\n" + "\n".join(map(page, latest)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "measure", "page"))
    parser.add_argument("task", nargs="?", default=TASK)
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--name", default="model")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    try:
        done(parser.parse_args())
    except UserError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

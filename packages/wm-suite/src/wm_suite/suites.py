"""A suite (TOML) -> its cells: one run for each task, arm and seed, and what it is measured by.

title = "One bit over n steps"
minutes = 20                        # that a run may compute (`process_time.py`); then it is saved, measured as it is, and marked
measure = "wm_run.measures:fresh"   # module:function, of all runs or of one [[run]]
score = "trained"                   # the field of a row that is the score: a number, or a list of episodes' scores
outcome = "won"                     # where there is one: a field of 0 and 1 of the same episodes
[normalise]
table = "atari_human"               # a table of data/: random and reference scores
[[printed]]
table = "po_dreamer_table1"         # rows that are shown as printed and never computed with
[options]                           # of every run: what `train` takes, without --seed and --logdir
steps = 60_000
[[run]]                             # the arm named so, on these tasks, with these seeds
arm = "r2i"
app = "r2i"
preset = "contrast"
ablation = ""                       # beside the preset
tasks = ["bsuite_memory_len/11"]    # or the name of a list in data/tasks.toml, such as "atari26"
seeds = [0, 1, 2]
options = { horizon = 5 }           # over those of the suite
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from wm_suite import tables
from wm_suite.errors import SuiteError

MEASURE = "wm_run.measures:fresh"
SUITE = {
    "title": str,
    "minutes": (int, float),
    "measure": str,
    "score": str,
    "outcome": str,
    "normalise": dict,
    "printed": list,
    "options": dict,
    "run": list,
}
RUN = {
    "arm": str,
    "app": str,
    "preset": str,
    "ablation": str,
    "measure": str,
    "tasks": (list, str),
    "seeds": list,
    "options": dict,
}
OURS = ("task", "seed", "preset", "ablation", "logdir")  # of `train`, and the suite's to say
MINUTES = 20.0


@dataclass(frozen=True)
class Cell:
    """One run of a suite."""

    task: str
    arm: str
    seed: int
    app: str
    preset: str
    options: Mapping[str, Any]
    ablation: str = ""
    measure: str = MEASURE

    @property
    def key(self) -> tuple[str, str, int]:
        """What a suite has once."""
        return self.task, self.arm, self.seed

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.arm} on {self.task}, seed {self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """What a row must have been made with to be this run's."""
        ablation = {"ablation": self.ablation} if self.ablation else {}
        return {"app": self.app, "preset": self.preset, "options": dict(self.options), **ablation}

    @property
    def words(self) -> list[str]:
        """Of `python -m APP train`, but for the folder.

        >>> " ".join(Cell("toy:catch", "b", 3, "dreamer", "tiny", {"steps": 80}, "no-kl").words)
        '--preset tiny --ablation no-kl --task toy:catch --seed 3 --steps 80'
        """
        named = [word for name, value in self.options.items() for word in (f"--{name}", *map(str, several(value)))]
        preset = ["--preset", self.preset] if self.preset else []
        ablation = ["--ablation", self.ablation] if self.ablation else []
        return [*preset, *ablation, "--task", self.task, "--seed", str(self.seed), *named]

    @property
    def folder(self) -> str:
        """The name of its run folder among those of its suite.

        >>> Cell("bsuite_memory_len/11", "r2i", 0, "r2i", "cpu", {}).folder
        'bsuite_memory_len_11-r2i-0'
        """
        task, arm = (re.sub(r"[^A-Za-z0-9.]+", "_", self.task), re.sub(r"[^A-Za-z0-9._-]+", "_", self.arm))
        return f"{task}-{arm}-{self.seed}"


@dataclass(frozen=True)
class Suite:
    """A suite as its file says it.

    minutes: that a run may compute, see `wm_suite.process_time`. score, outcome: fields of a row. normalise: the table of random and reference
    scores, or "". printed: tables that stand beside its own as their papers print them.
    """

    name: str
    title: str
    minutes: float
    cells: tuple[Cell, ...]
    score: str = "trained"
    outcome: str = ""
    normalise: str = ""
    printed: tuple[str, ...] = ()

    @property
    def arms(self) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(cell.arm for cell in self.cells))

    @property
    def tasks(self) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(cell.task for cell in self.cells))


def shipped() -> list[str]:
    """The names of the suites that come with this package."""
    folder = resources.files("wm_suite") / "suites"
    return sorted(one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml"))


def read(path_or_name: str | Path, seeds: Sequence[int] | None = None, folders: Sequence[Path] = ()) -> Suite:
    r"""The suite in a file, or of a name.

    Args:
        path_or_name: a path that ends in .toml, or the name of a suite that lies in `folders` or comes with this package.
        seeds: in place of every run's.
        folders: where a name is looked for first.

    Raises:
        SuiteError: what is wrong with it, in a sentence.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = '[[run]]\napp = "dreamer"\ntasks = ["toy:catch"]\nseeds = [0, 1]\n'
        ...     _ = (Path(folder) / "mine.toml").write_text(text)
        ...     suite = read(Path(folder) / "mine.toml")
        >>> suite.name, [cell.key for cell in suite.cells]
        ('mine', [('toy:catch', 'dreamer', 0), ('toy:catch', 'dreamer', 1)])
    """
    file, text = _text(path_or_name, folders)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"{file} is not TOML: {error}") from error
    _fit(found, SUITE, file)
    _plain(found.get("options", {}), file)
    cells: list[Cell] = []
    for i, run in enumerate(found.get("run", []), 1):
        cells += _cells(run, found, f"run {i} of {file}", seeds)
    if not cells:
        raise SuiteError(f"{file} plans no [[run]]")
    for name in ("key", "folder"):
        values = [getattr(cell, name) for cell in cells]
        if twice := {one for one in values if values.count(one) > 1}:
            raise SuiteError(f"{file} plans {min(twice)} twice: give the arms different names")
    return Suite(
        name=file.removesuffix(".toml"),
        title=found.get("title", file.removesuffix(".toml")),
        minutes=_minutes(found, file),
        cells=tuple(cells),
        score=found.get("score", "trained"),
        outcome=found.get("outcome", ""),
        normalise=_table(found["normalise"], "references", f"[normalise] of {file}") if "normalise" in found else "",
        printed=tuple(_table(one, "scores", f"[[printed]] of {file}") for one in found.get("printed", [])),
    )


def _text(path_or_name: str | Path, folders: Sequence[Path]) -> tuple[str, str]:
    """The name of a suite's file, and what is in it. Raises SuiteError."""
    path, name = Path(path_or_name), str(path_or_name)
    if not name.endswith(".toml"):
        if not re.fullmatch(r"[\w.-]+", name):
            raise SuiteError(f"{name} is no suite: name a file that ends in .toml")
        inside = [folder / f"{name}.toml" for folder in folders if (folder / f"{name}.toml").is_file()]
        if not inside and name not in shipped():
            ours = sorted({one.stem for folder in folders for one in folder.glob("*.toml")} | set(shipped()))
            known = f"; by name there are {', '.join(ours)}" if ours else ""
            raise SuiteError(f"there is no suite {name!r}: name a file that ends in .toml{known}")
        if not inside:
            return f"{name}.toml", (resources.files("wm_suite") / "suites" / f"{name}.toml").read_text("utf-8")
        path = inside[0]
    try:
        return path.name, path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path} is not UTF-8 text: {error}") from error


def _cells(run: Any, found: Mapping[str, Any], where: str, seeds: Sequence[int] | None) -> list[Cell]:
    """Of one [[run]]. Raises SuiteError."""
    if not isinstance(run, dict):
        raise SuiteError(f"{where} is {run!r}: write each as a table under [[run]]")
    _fit(run, RUN, where)
    _plain(run.get("options", {}), where)
    if lacking := {"app", "tasks", "seeds"} - run.keys():
        raise SuiteError(f"{where} lacks {', '.join(sorted(lacking))}")
    tasks = _named(run["tasks"], where) if isinstance(run["tasks"], str) else run["tasks"]
    for name, values, kind, words in (
        ("tasks", tasks, str, "names in quotes"),
        ("seeds", run["seeds"], int, "whole numbers"),
    ):
        if odd := [one for one in values if type(one) is not kind]:
            raise SuiteError(f"{name} of {where} has {odd[0]!r}: a list of {words}")
        if not values:
            raise SuiteError(f"{name} of {where} is an empty list: name at least one")
        if twice := [one for one in values if values.count(one) > 1]:
            raise SuiteError(f"{name} of {where} has {twice[0]!r} twice: take one out")
    measure = run.get("measure", found.get("measure", MEASURE))
    if not re.fullmatch(r"[\w.]+:\w+", measure):
        raise SuiteError(f"measure of {where} is {measure!r}: write module:function, as in {MEASURE!r}")
    same = {"arm": run.get("arm", run["app"]), "app": run["app"], "preset": run.get("preset", "")}
    same |= {"ablation": run.get("ablation", ""), "measure": measure}
    options = found.get("options", {}) | run.get("options", {})
    return [
        Cell(task=task, seed=seed, options=options, **same)
        for seed in (run["seeds"] if seeds is None else dict.fromkeys(seeds))
        for task in tasks
    ]


def _named(name: str, where: str) -> list[Any]:
    """A list of data/tasks.toml. Raises SuiteError."""
    lists = tomllib.loads((resources.files("wm_suite") / "data" / "tasks.toml").read_text("utf-8"))
    if name not in lists:
        raise SuiteError(f"tasks of {where} is {name!r}: give a list of tasks, or one of the names {', '.join(lists)}")
    return list(lists[name])


def _minutes(found: Mapping[str, Any], file: str) -> float:
    """Raises SuiteError for a limit under which no run could begin."""
    minutes = float(found.get("minutes", MINUTES))
    if not minutes > 0:  # nor nan
        raise SuiteError(f"minutes of {file} is {minutes:g}: a number above 0, or inf for no limit")
    return minutes


def _table(found: Any, kind: str, where: str) -> str:
    """The name of a table of data/ that is of this kind: now, and not when the runs are there. Raises SuiteError."""
    if not isinstance(found, dict) or not isinstance(found.get("table"), str) or len(found) > 1:
        raise SuiteError(f'{where} is {found!r}: write table = "NAME"')
    try:
        tables.table(found["table"], kind)
    except SuiteError as error:
        raise SuiteError(f"{where}: {error}") from error
    return str(found["table"])


def _fit(found: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """Raises SuiteError for a name that a suite has not, or a value of another kind."""
    for name, value in found.items():
        if name not in kinds:
            raise SuiteError(f"{where} has {name!r}; it may have {', '.join(kinds)}")
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise SuiteError(f"{name} of {where} is {value!r}")


def _plain(options: Mapping[str, Any], where: str) -> None:
    """Raises SuiteError for an option that `train` cannot be given, or not here."""
    for name, value in options.items():
        if name.replace("-", "_") in OURS:
            raise SuiteError(f"options of {where} have {name!r}, which the suite says elsewhere: take it out")
        if not all(isinstance(one, (str, int, float)) for one in several(value)):
            raise SuiteError(f"option {name} of {where} is {value!r}: a text, a number, true, false or a list of them")


def several(value: Any) -> list[Any]:
    """The words of an option.

    >>> several(3), several(["wandb", "trackio"])
    ([3], ['wandb', 'trackio'])
    """
    return value if isinstance(value, list) else [value]

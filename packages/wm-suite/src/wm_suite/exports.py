"""Runs with their scores -> the files in which other projects keep theirs, and back.

danijar     JSON or JSON.gz, a row a run {"task", "method", "seed", "xs", "ys"}: DreamerV3's score files and plot.py
finals      {"Alien": [a score a seed]}, one file a method: what STORM and DIAMOND published
marl-eval   {environment: {task: {method: {run: {step: {metric: [...]}}}}}}: Gorsane et al. 2022
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_suite import foreign
from wm_suite.errors import SuiteError
from wm_suite.scored import Scored
from wm_suite.statistics import binned

KINDS = ("danijar", "finals", "marl-eval")
POINTS = 30  # of a curve in marl-eval's file
_GAMES = {"james_bond": "jamesbond"}  # one word elsewhere


def write(kind: str, scored: Sequence[Scored], out: Path, points: int = POINTS) -> tuple[list[Path], list[str]]:
    """The files written, and sentences about what was left out or will not be taken there.

    Args:
        kind: One of KINDS.
        out: The file, `.json.gz` for a packed one; of `finals` a folder, with a file for each method.
        points: Of a curve in marl-eval's file, which wants the same number for every run.

    Raises SuiteError where nothing can be written.
    """
    if not scored:
        raise SuiteError("there is no run to export")
    if kind == "danijar":
        return [_save(out, danijar(scored))], [f"{one.name} has no curve" for one in scored if not one.curve]
    if kind == "finals":
        without = [f"{one.name} has no score and is left out" for one in scored if not one.final]
        methods = dict.fromkeys(one.method for one in scored if one.final)
        files = {method: out / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', method)}.json" for method in methods}
        if len(set(files.values())) < len(files):
            raise SuiteError(f"methods {', '.join(files)} would share a file: rename one")
        return [_save(file, finals(scored, method)) for method, file in files.items()], without
    if kind == "marl-eval":
        content, notes = marl_eval(scored, points)
        return [_save(out, content)], notes
    raise SuiteError(f"there is no kind of score file {kind!r}: {', '.join(KINDS)}")


# ---- what each file holds


def danijar(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """A row a run, its curve as xs and ys.

    >>> danijar([Scored("atari100k_james_bond", "r2i", 0, ((400.0, 50.0),))])
    [{'task': 'atari_jamesbond', 'method': 'r2i', 'seed': 0, 'xs': [400], 'ys': [50.0]}]
    """
    return [
        {
            "task": _prefixed(one.task),
            "method": one.method,
            "seed": one.seed,
            "xs": [int(step) if step.is_integer() else step for step, _ in one.curve],
            "ys": [score for _, score in one.curve],
        }
        for one in scored
    ]


def finals(scored: Sequence[Scored], method: str) -> dict[str, list[float]]:
    """Of one method, the score of each seed in order, by the game's name in one word; other tasks keep theirs.

    >>> finals([Scored("atari100k_up_n_down", "r2i", 1, (), (4.0, 6.0))], "r2i")
    {'UpNDown': [5.0]}
    """
    found: dict[str, list[float]] = {}
    for one in sorted((one for one in scored if one.method == method and one.final), key=lambda one: one.seed):
        found.setdefault(game(one.task), []).append(one.score)
    return found


def marl_eval(scored: Sequence[Scored], points: int = POINTS) -> tuple[dict[str, Any], list[str]]:
    """What marl-eval reads, and sentences about what it will refuse.

    It wants the same tasks, number of runs and steps of every method. Curves therefore become `points` equal spans of the
    steps that all runs of a task reach; runs are numbered in the order of their seeds; names are in lower case there, and
    those that then are one would be lost: SuiteError. Metrics: "return", and "win_rate" where every run has one.
    """
    notes = [f"{one.name} has no curve or no score and is left out" for one in scored if not one.curve or not one.final]
    kept = [one for one in scored if one.curve and one.final]
    if not kept:
        raise SuiteError("no run has a curve and a score, which marl-eval needs")
    methods = _lower([one.method.replace(",", ";") for one in kept])
    wins = all(one.won and one.outcomes for one in kept)
    content: dict[str, Any] = {}
    counts: dict[tuple[str, str], int] = {}
    for task in dict.fromkeys(one.task for one in kept):
        here = [one for one in kept if one.task == task]
        end = min(one.curve[-1][0] for one in here)
        curves = {id(one): _spans(one.curve, end, points) for one in here}
        shares = {id(one): _spans(one.won, end, points) for one in here} if wins else {}
        known = np.isfinite([*curves.values(), *shares.values()]).all(0)  # an episode may be longer than a span
        environment, name = _parted(task)
        for one in sorted(here, key=lambda one: one.seed):
            method = one.method.replace(",", ";").lower()
            runs = content.setdefault(environment, {}).setdefault(name, {}).setdefault(method, {})
            steps: dict[str, Any] = {}
            for number, at in enumerate(np.flatnonzero(known), 1):
                step = {"step_count": round(end * (at + 1) / points), "return": [float(curves[id(one)][at])]}
                steps[f"step_{number}"] = step | ({"win_rate": [float(shares[id(one)][at])]} if wins else {})
            steps["absolute_metrics"] = {"return": [one.score]}
            if wins:
                steps["absolute_metrics"]["win_rate"] = [sum(one.outcomes) / len(one.outcomes)]
            counts[task, one.method] = len(runs) + 1
            runs[f"run_{len(runs) + 1}"] = steps
    if any((task, one.method) not in counts for task in {task for task, _ in counts} for one in kept):
        notes.append(f"methods differ in their tasks ({', '.join(methods)}): marl-eval refuses such files")
    if len(set(counts.values())) > 1:
        counted = ", ".join(f"{count} of {method} on {task}" for (task, method), count in counts.items())
        notes.append(f"numbers of seeds differ ({counted}): marl-eval refuses such files")
    lengths = {
        len(next(iter(runs.values()))) for tasks in content.values() for one in tasks.values() for runs in one.values()
    }
    if len(lengths) > 1:
        notes.append("numbers of points differ between tasks, for in some all episodes are long: take fewer points")
    return content, notes


# ---- names


def game(task: str) -> str:
    """A game of Atari in one word, as papers print it.

    >>> game("atari100k_kung_fu_master"), game("atari_jamesbond"), game("dmc_walker_walk")
    ('KungFuMaster', 'Jamesbond', 'dmc_walker_walk')
    """
    found = re.fullmatch(r"atari(?:100k)?_(\w+)", task)
    if not found:
        return task
    return "".join(part.capitalize() for part in _GAMES.get(found[1], found[1]).split("_"))


def _prefixed(task: str) -> str:
    """The name of a task in files of DreamerV3's scores."""
    found = re.fullmatch(r"atari100k_(\w+)", task)
    return f"atari_{_GAMES.get(found[1], found[1])}" if found else task


def _parted(task: str) -> tuple[str, str]:
    """The suite of a task and the rest of its name.

    >>> _parted("smax:3m"), _parted("atari100k_ms_pacman"), _parted("mine")
    (('smax', '3m'), ('atari100k', 'ms_pacman'), ('mine', 'mine'))
    """
    found = re.fullmatch(r"(memory_maze|[^:_]+)[:_](.+)", task)
    return (found[1].lower(), found[2].lower()) if found else (task.lower(), task.lower())


def _lower(names: Sequence[str]) -> list[str]:
    """Raises SuiteError where two names are one in lower case."""
    found = list(dict.fromkeys(names))
    for one in found:
        if len({other for other in found if other.lower() == one.lower()}) > 1:
            raise SuiteError(
                f"methods {', '.join(found)} are not told apart in lower case, as marl-eval reads: rename one"
            )
    return found


def _spans(curve: Sequence[tuple[float, float]], end: float, points: int) -> Any:
    """Means over equal spans of 0 .. end."""
    steps, values = np.array([one for one in curve if one[0] <= end]).reshape(-1, 2).T
    return binned(steps, values, end, points)


# ---- files


def _save(path: Path, content: Any) -> Path:
    """Whole or not at all. Raises SuiteError."""
    packed = path.name.endswith(".gz")
    text = json.dumps(content, allow_nan=False, indent=None if packed else 1).encode() + b"\n"
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(gzip.compress(text, mtime=0) if packed else text)
        os.replace(beside, path)
    except OSError as error:
        raise SuiteError(f"{path} cannot be written: {error.strerror}; choose another --out") from error
    return path


def read(path: Path) -> list[Scored]:
    """The runs in a score file, packed or not. Raises SuiteError for what is none.

    Of DreamerV3's kind: a point without a number is left out, and the last tenth of a run's steps is its score, as of a run
    folder. Of the kind of `finals`: the method is the file's name, and seeds are numbered in their order.
    """
    try:
        content = path.read_bytes()
        rows = foreign.parsed(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror or error}") from error
    except (EOFError, ValueError) as error:
        raise SuiteError(f"{path} is no JSON: {error}") from error
    if isinstance(rows, dict):
        return _finals(rows, path)
    if not isinstance(rows, list):
        raise SuiteError(f'{path} is no list of runs {{"task", "method", "seed", "xs", "ys"}}')
    found = []
    for number, row in enumerate(rows, 1):
        try:
            curve = tuple((foreign.step(x), foreign.number(y)) for x, y in zip(row["xs"], row["ys"], strict=True))
            curve = tuple(one for one in curve if math.isfinite(one[1]))
            task, method, seed = str(row["task"]), str(row["method"]), int(row["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise SuiteError(
                f"run {number} of {path} is none ({type(error).__name__}: {error}): take it out"
            ) from error
        reached = max((step for step, _ in curve), default=0.0)
        found.append(Scored(task, method, seed, curve, tuple(score for step, score in curve if step > 0.9 * reached)))
    return found


def _finals(games: Mapping[str, Any], path: Path) -> list[Scored]:
    method, found = path.name.partition(".json")[0], []
    for task, scores in games.items():
        if not isinstance(scores, list):
            raise SuiteError(f"{task} of {path} has no list of scores, one a seed")
        try:
            values = [foreign.number(one) for one in scores]
        except foreign.Odd as error:
            raise SuiteError(f"a score of {task} in {path} {error}") from error
        found += [Scored(task, method, seed, (), (one,)) for seed, one in enumerate(values) if math.isfinite(one)]
    return found


def at_the_end(scored: Sequence[Scored], step: float) -> dict[str, list[float]]:
    """Of every task the score of each seed that has a point from a step on: the mean over them; where no seed has one, of
    each its last point. So DreamerV3's table follows from its score files.

    >>> runs = [Scored("t", "m", seed, curve) for seed, curve in enumerate([((80.0, 1.0), (95.0, 3.0)), ((80.0, 9.0),)])]
    >>> at_the_end(runs, 90.0), at_the_end(runs, 99.0)
    ({'t': [3.0]}, {'t': [3.0, 9.0]})
    """
    found: dict[str, list[float]] = {}
    for task in dict.fromkeys(one.task for one in scored):
        curves = [one.curve for one in scored if one.task == task and one.curve]
        late = [[score for at, score in curve if at >= step] for curve in curves]
        known = [scores for scores in late if scores] or [[curve[-1][1]] for curve in curves]
        if known:
            found[task] = [sum(scores) / len(scores) for scores in known]
    return found


def by_method(scored: Sequence[Scored]) -> Mapping[str, dict[str, list[float]]]:
    """method -> task -> the score of each seed, as `aggregate` takes them; runs without a score are left out."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in sorted(scored, key=lambda one: one.seed):
        if one.final:
            found.setdefault(one.method, {}).setdefault(one.task, []).append(one.score)
    return found

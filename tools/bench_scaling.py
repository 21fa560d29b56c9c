"""How the cost of an update grows with one of its sizes: each point a process of its own, all points in every round.

bench.py scaling --app dreamer --preset atari100k --batch 4 --length 16 64 256      one axis
bench.py scaling --app dreamer --batch 2 --batch 1 2 4 --length 64 --length 16 64   two, and where each stands meanwhile
bench.py scaling --app dreamer --preset atari100k --size 12m --batch 4              all of AXES

A point is timed once in a round, after one update that warms it up.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# a server that has imported everything once and forks the points: each is a process of its own, without the seconds
# that importing torch takes
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["bench"])
Pool = FORKS.Pool
# what is tried where no option has several values, around the values that the other options give
AXES = {
    "batch": ["1", "2", "4", "8", "16"],
    "length": ["16", "32", "64", "128", "256"],
    "horizon": ["5", "15", "30", "60"],
    "size": ["1m", "12m", "25m", "50m"],
    "image": ["32", "64", "96", "128"],
}
LABELS = {"image": "side of the image", "size": "parameters"}


def axes(options: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Options -> those with one value, and the axes: the option that has several, or all of AXES.

    >>> axes(["--preset", "tiny", "--length", "16", "64"])
    (['--preset', 'tiny'], {'length': ['16', '64']})
    """
    groups: list[list[str]] = []
    for word in options:
        if word.startswith("--"):
            groups.append([word])
        elif groups:
            groups[-1].append(word)
    many = {group[0].removeprefix("--"): group[1:] for group in groups if len(group) > 2}
    fixed = [word for group in groups if len(group) <= 2 for word in group]
    return fixed, many or AXES


def point(app: str, options: Sequence[str]) -> dict[str, Any]:
    """The numbers of one update after one that warms it up. Raises UserError."""
    import bench

    options = list(options)
    side = [int(options.pop(at + 1)) for at in [options.index("--image")]] if "--image" in options else []
    words = [word for word in options if word != "--image"]
    return bench.measure("update", app, words, image=side[0] if side else None, warmup=0, repeat=1)[0]


def alone(app: str, options: Sequence[str]) -> dict[str, Any]:
    """`point` in a process of its own, whose peak of memory is the point's."""
    with Pool(1) as pool:
        return pool.apply(point, (app, options))


def measure(
    app: str, options: Sequence[str], rounds: int, keep: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """A row for every point of every axis: medians over the rounds. `keep` gets the rows so far after every point."""
    fixed, along = axes(options)
    plan = {(axis, value): point_of(fixed, axis, value) for axis, values in along.items() for value in values}
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {where: [] for where in plan.values()}
    rows: list[dict[str, Any]] = []
    for i in range(rounds):
        for where, runs in found.items():  # where two axes cross they share a point
            runs.append(alone(app, where))
            told = f"round {i + 1}: {' '.join(where)}: {runs[-1]['cpu_s']:.2f} CPU s"
            print(told, file=sys.stderr, flush=True)
            rows = [row(app, *name, found[there]) for name, there in plan.items() if found[there]]
            keep(rows)
    return rows


def point_of(fixed: Sequence[str], axis: str, value: str) -> tuple[str, ...]:
    """The options of a point, the same for the same point.

    >>> point_of(["--size", "12m", "--batch", "4"], "batch", "2")
    ('--batch', '2', '--size', '12m')
    """
    pairs = {fixed[i]: fixed[i + 1] for i in range(0, len(fixed), 2)} | {f"--{axis}": value}
    return tuple(word for name in sorted(pairs) for word in (name, pairs[name]))


def row(app: str, axis: str, value: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One point."""
    one, config = runs[0], runs[0]["config"]
    return {
        "app": app,
        "axis": axis,
        "value": value,
        "cpu_s": statistics.median(run["cpu_s"] for run in runs),
        "spread": [min(run["cpu_s"] for run in runs), max(run["cpu_s"] for run in runs)],
        "peak_mb": statistics.median(run["peak_mb"] for run in runs),
        **{name: one[name] for name in ("flops", "aten_calls", "parameters", "commit", "torch", "hardware")},
        **{name: config[name] for name in ("batch", "length", "horizon")},
    }


def scaling_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of all axes: cost relative to the first point of each axis too."""
    lines = ["| axis | value | CPU s | over the first | GFLOP | over the first | peak MB | calls |", "|" + "---|" * 8]
    first: dict[str, Mapping[str, Any]] = {}
    for one in rows:
        base = first.setdefault(one["axis"], one)
        lines.append(
            f"| {one['axis']} | {one['value']} | {one['cpu_s']:.3f} | {one['cpu_s'] / base['cpu_s']:.2f} | "
            f"{one['flops'] / 1e9:.1f} | {one['flops'] / base['flops']:.2f} | {one['peak_mb']:,.0f} | "
            f"{one['aten_calls']:,} |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A column for each axis: CPU seconds and peak memory, both scales logarithmic, a line for each app."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(one["axis"] for one in rows))
    figure, panels = plt.subplots(2, len(names), figsize=(3 * len(names) + 1, 6), squeeze=False, sharey="row")
    for column, axis in zip(panels.T, names, strict=True):
        for app in dict.fromkeys(one["app"] for one in rows):
            mine = [one for one in rows if (one["app"], one["axis"]) == (app, axis)]
            x = [one["parameters"] if axis == "size" else float(one["value"]) for one in mine]
            column[0].plot(x, [one["cpu_s"] for one in mine], "o-", label=app)
            column[1].plot(x, [one["peak_mb"] for one in mine], "o-", label=app)
        for panel in column:
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.grid(alpha=0.3)
        column[1].set_xlabel(LABELS.get(axis, axis))
    panels[0, 0].set_ylabel("CPU s of an update")
    panels[1, 0].set_ylabel("peak MB")
    panels[0, 0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def run(app: str, options: Sequence[str], *, rounds: int, out: str | None) -> str:
    """Measure; with `out`, keep the rows in that file (JSON lines, in place of the same points) and draw all it holds."""

    def keep(rows: list[dict[str, Any]]) -> None:
        if out is not None:
            write(Path(out), rows)

    rows = measure(app, options, rounds, keep)
    if out is not None:
        plot([json.loads(line) for line in Path(out).read_text().splitlines()], Path(out).with_suffix(".png"))
    return scaling_table(rows)


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows into a file of JSON lines, in place of what it held of the same axes."""
    kept = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    new = {(one["app"], one["axis"]) for one in rows}
    kept = [one for one in kept if (one["app"], one["axis"]) not in new] + list(rows)
    file.write_text("".join(json.dumps(one) + "\n" for one in kept))

"""How the cost of an update grows with one of its sizes: each point a process of its own, all points in every round.

scaling --app dreamer --preset atari100k --batch 4 --length 16 64 256      one axis
scaling --app dreamer --batch 2 --batch 1 2 4 --length 64 --length 16 64   two, and where each stands meanwhile
scaling --app dreamer --preset atari100k --size 12m --batch 4              all of AXES

A point is timed once in a round, after one update that warms it up.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.clock import medians
from bench.command import Command, say, words_of
from bench.processes import alone
from bench.rows import Picture, Row
from bench.update import measured

# what is tried where no option has several values, around the values that the other options give
AXES = {
    "batch": ["1", "2", "4", "8", "16"],
    "length": ["16", "32", "64", "128", "256"],
    "horizon": ["5", "15", "30", "60"],
    "size": ["1m", "12m", "25m", "50m"],
    "image": ["32", "64", "96", "128"],
}


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


def point_of(fixed: Sequence[str], axis: str, value: str) -> tuple[str, ...]:
    """The options of a point, the same for the same point.

    >>> point_of(["--size", "12m", "--batch", "4"], "batch", "2")
    ('--batch', '2', '--size', '12m')
    """
    pairs = {fixed[i]: fixed[i + 1] for i in range(0, len(fixed), 2)} | {f"--{axis}": value}
    return tuple(word for name in sorted(pairs) for word in (name, pairs[name]))


def point(app: str, options: Sequence[str]) -> dict[str, Any]:
    """The row of one update. Raises UserError."""
    words = list(options)
    side = [int(words.pop(at + 1)) for at in [words.index("--image")]] if "--image" in words else [None]
    return measured(app, [word for word in words if word != "--image"], image=side[0], rounds=1, warmup=0)


def scaling(args: Namespace, words: list[str]) -> Iterator[Row]:
    """A row for every point of every axis, again after every round: medians so far."""
    fixed, along = axes([*words, *words_of("image", args.image)])
    plan = {(axis, value): point_of(fixed, axis, value) for axis, values in along.items() for value in values}
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {where: [] for where in plan.values()}
    for i in range(args.rounds):
        for where, runs in found.items():  # where two axes cross they share a point
            runs.append(alone(point, args.app, where))
            say(f"round {i + 1}: {' '.join(where)}: {runs[-1]['cpu_s']:.2f} CPU s")
            for (axis, value), there in plan.items():
                if there == where:
                    base = row_of(axis, value, found[plan[axis, along[axis][0]]])
                    row = row_of(axis, value, runs)
                    yield row | {f"{name}_over_first": row[name] / base[name] for name in ("cpu_s", "flops")}


def row_of(axis: str, value: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One point."""
    one, config = runs[0], runs[0]["config"]
    sizes = {name: config[name] for name in ("batch", "length", "horizon")}
    x = one["parameters"] if axis == "size" else float(value)
    return {**one, "calls": {}} | medians(runs) | sizes | {"axis": axis, "value": value, "x": x, "rounds": len(runs)}


def image(parser: Any) -> None:
    """--image with several values is an axis."""
    parser.add_argument("--image", nargs="+", metavar="SIDE", help="side of images, instead of the task's")


COLUMNS = {
    "axis": "{axis}",
    "value": "{value}",
    "CPU s": "{cpu_s:.3f}",
    "over the first": "{cpu_s_over_first:.2f}",
    "GFLOP": "{flops:G.1f}",
    "GFLOP over the first": "{flops_over_first:.2f}",
    "peak MB": "{peak_mb:,.0f}",
    "calls": "{aten_calls:,}",
}
PICTURE = Picture("{axis}", "{x}", {"cpu_s": "CPU s of an update", "peak_mb": "peak MB"}, "{app}")
COMMANDS = {"scaling": Command(scaling, COLUMNS, image, key=("app", "axis", "value"), picture=PICTURE)}

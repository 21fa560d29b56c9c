"""Groups of runs -> one HTML page that needs nothing else: no network, no other file; readable in light and dark."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from wm_suite.chart import COLOURS, Line, short, svg
from wm_suite.document import document, legend, swatch
from wm_suite.films import figure, film, newest
from wm_suite.finals import finals
from wm_suite.gather import SCORE, TAIL
from wm_suite.groups import Group, differing
from wm_suite.results import newest_dream
from wm_suite.statistics import Curve, over_seeds

SECTIONS = (  # title, prefixes of the names, what stands under the title
    ("Score", ("episode/", "eval/"), "Of training episodes, by the step at which they ended; eval/ of fresh ones."),
    ("Losses", ("train/loss/",), "As optimised, before their scales."),
    (
        "Health of the world model",
        ("train/health/", "train/latent/", "health/"),
        "KL in nats (a latent below 0.01 is dead), classes never used, predicted against arrived reward and cont, "
        + "lambda return minus value. A gap: nothing of the kind in the interval (no reward, no end).",
    ),
    ("Behaviour", ("train/behaviour/",), "In imagination."),
)
PACKAGES = ("torch", "numpy", "gymnasium", "ale-py", "dm-control", "wm-core", "wm-run", "wm-memory", "env-adapters")


def page(groups: Sequence[Group], notes: Sequence[str] = (), *, title: str = "Runs") -> str:
    """The whole report as HTML text."""
    colours = {id(one): i for i, one in enumerate(groups)}
    body = [f"<h1>{escape(title)}</h1>", *(f'<p class="mark">{escape(note)}</p>' for note in notes)]
    body.append(_finals(groups, colours))
    body.append(
        '<p class="about">Lines are means over seeds, bands one standard error of that mean; one seed has no band. '
        "A faint stretch: not every seed has come so far.</p>"
    )
    for task in dict.fromkeys(one.task for one in groups):
        here = [one for one in groups if one.task == task]
        buttons = legend((colours[id(one)], one.label, len(one.runs)) for one in here)
        body.append(f'<section class="task"><h2>{escape(task)}</h2>{buttons}')
        body += _charts(here, colours)
        body.append(_openloops(here, colours))
        body += [_films(one) for one in here]
        body.append("</section>")
    body += ["<h2>What ran</h2>", *(_about(one) for one in groups)]
    return document(title, body)


def _finals(groups: Sequence[Group], colours: Mapping[int, int]) -> str:
    head = "<tr><th>task<th>method<th>seeds<th>steps<th>score, last tenth<th>episodes<th>eval</tr>"
    rows = []
    for one in groups:
        row = finals(one)
        low, high = row["steps"]
        steps = f"{high:,}" if low == high else f"{low:,} to {high:,}"
        tested = (
            ""
            if not row["eval_seeds"]
            else f"{_spread(row['eval'], row['eval_error'])} ({row['eval_acting']}, n={row['eval_seeds']})"
        )
        rows.append(
            f"<tr><td>{escape(row['task'])}<td>{swatch(colours[id(one)])}{escape(row['method'])}<td>{row['seeds']}"
            f"<td>{steps}<td>{_spread(row['score'], row['error'])} (n={row['scored']})<td>{row['episodes']}<td>{tested}</tr>"
        )
    about = f"Mean &plusmn; standard error over n seeds; of each seed the mean over its last {TAIL:.0%} of steps."
    return f'<div class="wide"><table><caption>{about}</caption>{head}{"".join(rows)}</table></div>'


def _spread(mean: float, error: float) -> str:
    return f"{mean:.4g}" + (f" &plusmn; {error:.2g}" if math.isfinite(error) else "")


def _charts(groups: Sequence[Group], colours: Mapping[int, int]) -> list[str]:
    """All sections of a task; what no section names stands folded at the end."""
    end = float(max(run.reached for one in groups for run in one.runs))
    names = sorted(set().union(*(one.names() for one in groups)))
    parts, taken = [], set()
    for title, prefixes, about in SECTIONS:
        mine = [name for name in names if name.startswith(prefixes)]
        mine.sort(key=lambda name: (name != SCORE, *_natural(name)))
        taken.update(mine)
        if mine:
            charts = "".join(_chart(groups, colours, name, end) for name in mine)
            parts.append(f'<h3>{title}</h3><p class="about">{about}</p><div class="charts">{charts}</div>')
    if rest := [name for name in names if name not in taken]:
        charts = "".join(_chart(groups, colours, name, end) for name in rest)
        parts.append(f'<details><summary>{len(rest)} more</summary><div class="charts">{charts}</div></details>')
    return parts


def _natural(name: str) -> list[tuple[int, str]]:
    """A key under which 5 comes before 15."""
    return [(int(word) if word.isdigit() else -1, word) for word in re.split(r"(\d+)", name)]


def _chart(groups: Sequence[Group], colours: Mapping[int, int], name: str, end: float) -> str:
    lines = [Line(one.label, colours[id(one)], one.curve(name, end)) for one in groups if name in one.names()]
    return svg(lines, title=name.removeprefix("train/"))


def _openloops(groups: Sequence[Group], colours: Mapping[int, int]) -> str:
    """The newest open-loop error by horizon of each run, its copy-the-last-frame baseline beside it."""
    lines = []
    for one in groups:
        found = [value for run in one.runs if (value := newest_dream(run))]
        for kind, shift in (("model", 0), ("copy", 10 * COLOURS)):
            rows = [value["error"][kind] for value in found if kind in value.get("error", {})]
            longest = max(map(len, rows), default=0)
            if not longest:
                continue
            table = np.array(
                [[np.nan if e is None else e for e in row] + [np.nan] * (longest - len(row)) for row in rows]
            )
            mean, error, count = over_seeds(table)
            name = one.label if kind == "model" else f"{one.label}: the last frame repeated"
            curve = Curve(np.arange(1, longest + 1, dtype=np.float64), mean, error, count)
            lines.append(Line(name, colours[id(one)] + shift, curve))
    if not lines:
        return ""
    chart = svg(lines, title="mean squared error on held-out steps", xlabel="steps ahead")
    key = "".join(f"<li>{swatch(line.colour)}{escape(line.label)}</li>" for line in lines)
    return f'<h3>Open loop</h3><div class="charts">{chart}<ul class="key">{key}</ul></div>'


def _films(group: Group) -> str:
    """Of the first run that has any: the newest film and picture of each kind."""
    for run in group.runs:
        if found := newest(run.logdir):
            figures = "".join(figure(film(path)) for path in found)
            return f'<h3>{escape(group.label)}, seed {run.seed}</h3><div class="films">{figures}</div>'
    return ""


def _about(group: Group) -> str:
    """Config, protocol and environment of a group; fields in which its runs differ show every value."""
    configs = [dict(run.config) for run in group.runs]
    moving = set(differing(configs))
    config = {
        name: (" | ".join(dict.fromkeys(str(one.get(name)) for one in configs)) if name in moving else value)
        for name, value in configs[0].items()
        if name != "run"
    }
    run = {name: value for name, value in configs[0].get("run", {}).items() if not isinstance(value, list)}
    machines = [_machine(one.environment) for one in group.runs]
    machine = {
        name: " | ".join(dict.fromkeys(str(one.get(name, "?")) for one in machines))
        for name in dict.fromkeys(name for one in machines for name in one)
    }
    parts = [("config", {**run, **config}), ("protocol", group.runs[0].protocol), ("environment", machine)]
    tables = "".join(_table(name, values) for name, values in parts)
    folders = "<br>".join(escape(str(one.logdir)) for one in group.runs)
    return (
        f"<details><summary>{escape(group.task)}: {escape(group.label)}, seeds {', '.join(map(str, group.seeds))}</summary>"
        f'<p class="about">{folders}</p><div class="tables">{tables}</div></details>'
    )


def _machine(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What of env.json bears on the numbers."""
    hardware, packages = (
        one if isinstance(one := environment.get(name), dict) else {} for name in ("hardware", "packages")
    )
    listed = hardware.get("gpus")
    gpus = ", ".join(map(str, listed if isinstance(listed, list) else [])) or "no GPU"
    found = {name: environment[name] for name in ("started", "commit", "python", "platform") if name in environment}
    if hardware:
        found["hardware"] = f"{hardware.get('cpu', '?')}, {hardware.get('cores', '?')} cores, {gpus}"
    return found | {name: packages[name] for name in PACKAGES if name in packages}


def _table(title: str, values: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(str(k))}<td>{escape(_text(v))}</tr>" for k, v in values.items() if v != "")
    return f"<table><caption>{title}</caption>{rows}</table>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and value > 10**6:
        return short(value) if value < 10**300 else f"about 10^{int(math.log10(value))}"
    return value if isinstance(value, str) else json.dumps(value, default=str)  # TOML has dates

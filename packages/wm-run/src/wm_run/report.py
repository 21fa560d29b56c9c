"""Groups of runs -> one HTML page that needs nothing else: no network, no other file; readable in light and dark."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from wm_run import evaluation
from wm_run.chart import COLOURS, Line, short, svg
from wm_run.gather import SCORE, TAIL, Curve, Group, Logged, differing, over_seeds

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
MEDIA_BYTES = 3_000_000  # of one film; a longer one is named and left out
PACKAGES = ("torch", "numpy", "gymnasium", "ale-py", "dm-control", "wm-core", "wm-memory", "env-adapters")


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
        body.append(f'<section class="task"><h2>{escape(task)}</h2>{_legend(here, colours)}')
        body += _charts(here, colours)
        body.append(_openloops(here, colours))
        body += [_films(one) for one in here]
        body.append("</section>")
    body += ["<h2>What ran</h2>", *(_about(one) for one in groups)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body>{''.join(body)}<div id=tip hidden></div><script>{SCRIPT}</script></body></html>\n"
    )


def finals(group: Group) -> dict[str, Any]:
    """The row of the final table: seeds, the least and most steps reached, mean and standard error of the final score,
    episodes behind it, and the same of the newest evaluation of each run, where there are any."""
    ends = [run.final() for run in group.runs]
    mean, error, count = over_seeds(np.array([[score] for score, _ in ends]))
    played = [(run, one) for run in group.runs if (one := newest_eval(run))]
    tested, spread, evaluated = over_seeds(np.array([[one["score"]] for _, one in played]).reshape(-1, 1))
    return {
        "task": group.task,
        "method": group.label,
        "seeds": len(group.runs),
        "steps": (min(run.reached for run in group.runs), max(run.reached for run in group.runs)),
        "score": float(mean[0]),
        "error": float(error[0]),
        "scored": int(count[0]),
        "episodes": sum(episodes for _, episodes in ends),
        "eval": float(tested[0]),
        "eval_error": float(spread[0]),
        "eval_seeds": int(evaluated[0]),
        "eval_acting": ", ".join(sorted({str(one.get("acting", "?")) for _, one in played})),
    }


def newest_eval(run: Logged) -> dict[str, Any] | None:
    """The result of the last `eval` of a run, by step, on its own task and protocol; of one step that which acted as the
    run wants it comes first, then that of the run's own seed."""
    wanted = run.config.get("eval_acting", "sample")
    found = [
        ((_step(path), value.get("acting") == wanted, not value.get("changed"), path.stem.isdecimal()), value)
        for path, value in _results(run, "eval")
        if value is not None and evaluation.same(value, run.task, run.protocol)
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


def damaged(groups: Sequence[Group]) -> list[str]:
    """A sentence about every result that cannot be read, and is in no report."""
    return [
        f"{path} is damaged and left out: remove it, or run `{kind}` again"
        for one in groups
        for run in one.runs
        for kind in ("eval", "dream")
        for path, value in _results(run, kind)
        if value is None
    ]


def _results(run: Logged, kind: str) -> list[tuple[Path, dict[str, Any] | None]]:
    """The files of LOGDIR/eval or LOGDIR/dream with what they hold, None where that is no result."""
    found: list[tuple[Path, dict[str, Any] | None]] = []
    for path in sorted((run.logdir / kind).glob("*.json")):
        if path.name.startswith("sensitivity-"):
            continue
        try:
            value = json.loads(path.read_text())
        except (ValueError, OSError):
            value = None
        whole = isinstance(value, dict) and (_scored(value) if kind == "eval" else _dreamt(value))
        found.append((path, value if whole else None))
    return found


def _scored(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("score"), (int, float))


def _dreamt(value: Mapping[str, Any]) -> bool:
    errors = value.get("error")
    return isinstance(errors, dict) and all(
        isinstance(row, list) and all(e is None or isinstance(e, (int, float)) for e in row) for row in errors.values()
    )


def _step(path: Path) -> int:
    """The step that a file's name begins with.

    >>> _step(Path("400-16f77685.json")), _step(Path("mine.json"))
    (400, -1)
    """
    found = re.match(r"[0-9]+", path.name)
    return int(found[0]) if found else -1


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
            f"<tr><td>{escape(row['task'])}<td>{_swatch(colours[id(one)])}{escape(row['method'])}<td>{row['seeds']}"
            f"<td>{steps}<td>{_spread(row['score'], row['error'])} (n={row['scored']})<td>{row['episodes']}<td>{tested}</tr>"
        )
    about = f"Mean &plusmn; standard error over n seeds; of each seed the mean over its last {TAIL:.0%} of steps."
    return f'<div class="wide"><table><caption>{about}</caption>{head}{"".join(rows)}</table></div>'


def _spread(mean: float, error: float) -> str:
    return f"{mean:.4g}" + (f" &plusmn; {error:.2g}" if math.isfinite(error) else "")


def _swatch(colour: int) -> str:
    return f'<i class="swatch" style="background:var(--c{colour % COLOURS})"></i>'


def _legend(groups: Sequence[Group], colours: Mapping[int, int]) -> str:
    items = [
        f'<button data-toggle="{colours[id(one)]}">{_swatch(colours[id(one)])}{escape(one.label)} '
        f"<small>(n={len(one.runs)})</small></button>"
        for one in groups
    ]
    return f'<p class="legend">{"".join(items)}</p>'


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
    key = "".join(f"<li>{_swatch(line.colour)}{escape(line.label)}</li>" for line in lines)
    return f'<h3>Open loop</h3><div class="charts">{chart}<ul class="key">{key}</ul></div>'


def newest_dream(run: Logged) -> dict[str, Any] | None:
    """The result of the last `dream` of a run, by step, on its own task; of one step its own seed's comes first."""
    found = [
        ((_step(path), path.stem.isdecimal()), value) for path, value in _results(run, "dream") if value is not None
    ]
    mine = [(order, value) for order, value in found if evaluation.same(value, run.task, run.protocol)]
    return max(mine, key=lambda one: one[0])[1] if mine else None


def _films(group: Group) -> str:
    """Of the first run that has any: the newest film and picture of each kind."""
    for run in group.runs:
        newest: dict[tuple[str, str], Path] = {}
        for path in sorted((run.logdir / "video").glob("*"), key=lambda one: (len(one.stem), one.stem)):
            if path.suffix in (".mp4", ".png") and re.fullmatch(r"[^.-][^-]*-[0-9]+", path.stem):  # the run's own
                newest[path.stem.partition("-")[0], path.suffix] = path
        if newest:
            films = "".join(_film(path) for path in sorted(newest.values()))
            return f'<h3>{escape(group.label)}, seed {run.seed}</h3><div class="films">{films}</div>'
    return ""


def _film(path: Path) -> str:
    size, name = path.stat().st_size, escape(path.stem)
    if size > MEDIA_BYTES:
        return (
            f"<figure><figcaption>{name}: {size / 1e6:.1f} MB, left out; see {escape(str(path))}</figcaption></figure>"
        )
    data = base64.b64encode(path.read_bytes()).decode()
    if path.suffix == ".png":
        return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{name}</figcaption></figure>'
    return (
        f'<figure><video controls muted loop playsinline src="data:video/mp4;base64,{data}"></video>'
        f"<figcaption>{name}</figcaption></figure>"
    )


def _about(group: Group) -> str:
    """Config, protocol and environment of a group; fields in which its runs differ show every value."""
    configs = [dict(run.config) for run in group.runs]
    moving = set(differing(configs))
    config = {
        name: (" | ".join(dict.fromkeys(str(one.get(name)) for one in configs)) if name in moving else value)
        for name, value in configs[0].items()
        if name != "run"
    }
    run = configs[0].get("run", {})
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
    hardware, packages = environment.get("hardware", {}), environment.get("packages", {})
    gpus = ", ".join(hardware.get("gpus", [])) or "no GPU"
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
    return (
        value
        if isinstance(value, str)
        else short(value)
        if isinstance(value, int) and value > 10**6
        else json.dumps(value)
    )


STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1c1e21;--soft:#666c75;--grid:#e4e6ea;--mark:#fff1c2;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#8c6d00;--c5:#56759c;--c6:#7b3fa0;--c7:#5b5b5b}
@media(prefers-color-scheme:dark){:root{--bg:#15171a;--fg:#e7e9ec;--soft:#9aa1ab;--grid:#2e3238;--mark:#4a3b00;
--c0:#56b4e9;--c1:#ff9a4d;--c2:#3fcf9f;--c3:#f0a3cc;--c4:#e6c84a;--c5:#9db8e0;--c6:#c9a0ea;--c7:#b8b8b8}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1240px;padding:20px;background:var(--bg);color:var(--fg);
font:14px/1.45 system-ui,sans-serif}h1{font-size:22px;margin:0 0 12px}h2{font-size:18px;margin:28px 0 8px;
border-bottom:1px solid var(--grid)}h3{font-size:15px;margin:20px 0 2px}.about,caption,figcaption,small{color:var(--soft)}
.about{margin:2px 0 8px;max-width:90ch}.mark{background:var(--mark);padding:8px 12px;border-radius:4px}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px}caption{text-align:left;padding:4px 0}
th,td{text-align:left;padding:3px 14px 3px 0;border-bottom:1px solid var(--grid);vertical-align:top;
font-variant-numeric:tabular-nums}th{font-weight:600}td{overflow-wrap:anywhere}.swatch{display:inline-block;width:11px;
height:11px;border-radius:2px;margin-right:6px}.legend button{font:inherit;color:inherit;background:none;margin:0 6px 4px 0;
border:1px solid var(--grid);border-radius:4px;padding:2px 8px;cursor:pointer}.legend button.off{opacity:.35}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(270px,1fr));gap:10px 16px}figure{margin:0}
.chart svg{width:100%;height:auto;display:block}figcaption{font-size:12px}svg text{font-size:10px;fill:var(--soft)}
.grid{stroke:var(--grid)}.axis{stroke:var(--soft)}.cursor{stroke:var(--soft);stroke-dasharray:2 2}
.line,.faint{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}.faint{opacity:.35}.dot{fill:var(--c)}
.band{fill:var(--c);opacity:.18}.key{list-style:none;margin:0;padding:18px 0;font-size:12px}
.films{display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start}.films video,.films img{max-width:100%;max-height:420px;
display:block}.tables{display:flex;flex-wrap:wrap;gap:28px}.tables table{max-width:380px}details{margin:8px 0}
summary{cursor:pointer}#tip{position:fixed;pointer-events:none;background:var(--bg);border:1px solid var(--grid);
border-radius:4px;padding:5px 8px;font-size:12px;box-shadow:0 2px 8px #0004;white-space:nowrap;z-index:9}
"""

SCRIPT = """
const tip=document.getElementById('tip'),off=new Set();
const say=v=>Math.abs(v)>=1e6?(v/1e6).toPrecision(3)+'M':Math.abs(v)>=1e3?(v/1e3).toPrecision(3)+'k':String(+v.toPrecision(4));
for(const b of document.querySelectorAll('[data-toggle]'))b.onclick=()=>{const id=b.dataset.toggle,hide=!off.has(id);
hide?off.add(id):off.delete(id);b.classList.toggle('off',hide);
for(const e of document.querySelectorAll(`[data-line="${id}"]`))e.style.display=hide?'none':''};
for(const f of document.querySelectorAll('.chart')){const d=JSON.parse(f.dataset.chart),s=f.querySelector('svg'),
c=f.querySelector('.cursor');s.onmousemove=e=>{const r=s.getBoundingClientRect(),[l,h,w]=d.box;
const x=((e.clientX-r.left)/r.width*w-l)/(h-l)*d.end;tip.textContent='';let at=null;
for(const g of d.lines){if(off.has(String(g.id)))continue;let i=0;
g.x.forEach((v,k)=>{if(Math.abs(v-x)<Math.abs(g.x[i]-x))i=k});if(g.mean[i]===null)continue;at=g.x[i];
const row=document.createElement('div'),sw=document.createElement('i');sw.className='swatch';
sw.style.background=`var(--c${g.colour})`;row.append(sw,`${g.label}: ${say(g.mean[i])}`+
(g.error[i]===null?'':` \\u00b1 ${say(g.error[i])}`)+` (n=${g.count[i]})`);tip.append(row)}
if(at===null){tip.hidden=true;return}const head=document.createElement('b');head.textContent=say(at);tip.prepend(head);
const px=l+at/d.end*(h-l);c.setAttribute('x1',px);c.setAttribute('x2',px);tip.hidden=false;
tip.style.left=Math.min(e.clientX+14,innerWidth-tip.offsetWidth-8)+'px';
tip.style.top=Math.min(e.clientY+14,innerHeight-tip.offsetHeight-8)+'px'};
s.onmouseleave=()=>{tip.hidden=true;c.setAttribute('x1',-9);c.setAttribute('x2',-9)}}
"""

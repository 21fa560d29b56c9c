"""Options of the commands, fields, presets and ablations of every app -> pages, from the classes that the commands read."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from typing import Any

from wm_run.app import App
from wm_run.config import RunConfig
from wm_run.options import OPTIONS

from book.places import ROOT

APPS = sorted(file.parent.name for file in ROOT.glob("apps/*/pyproject.toml"))
# what a resumed run may do with a field is said in words of its own, and an alias of a number is that number
MARKS = re.compile(r"\b(?:Training|Resumable|Machine|Chance)\[(.*)\]$")
NUMBERS = {"Count": "int, at least 1", "Share": "float in [0, 1)", "Rate": "float in [0, 1]"}


INTRODUCTION = """# Every command

Written from the options and fields as the commands themselves read them (`wm_run.options`, `wm_run.config`), for all apps
alike: put the name of one in the place of APP. `uv run apps/APP COMMAND --help` says the same, with the numbers of a preset
or a run where one is named.

A value comes from the defaults, then the preset, then `--size`, then `--ablation`, then the command line; the later wins. In
the folder of a run, its own numbers stand in the place of all but the last."""


def declared(kind: type[Any]) -> list[tuple[str, str, str, str]]:
    """(name, type, default, words) of the fields that a dataclass itself declares, as its source has them."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    values, found = kind(**_needed(kind)), []
    for at, node in enumerate(body.body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            following = body.body[at + 1] if at + 1 < len(body.body) else None
            words = (
                following.value.value
                if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                else ""
            )
            name = node.target.id
            default = "" if name in _needed(kind) else _shown(getattr(values, name))
            found.append((name, _type(ast.unparse(node.annotation)), default, " ".join(str(words).split())))
    return found


def _needed(kind: type[Any]) -> dict[str, Any]:
    """Values for the options without default, that an object can be made."""
    lacking = (dataclasses.MISSING, dataclasses.MISSING)
    return {f.name: () for f in dataclasses.fields(kind) if (f.default, f.default_factory) == lacking}


def _type(text: str) -> str:
    while found := MARKS.match(text):
        text = found[1]
    if found := re.match(r"Annotated\[(.*?), Bounds\(", text):
        text = found[1]
    if found := re.match(r"Literal\[(.*)\]$", text):
        return " or ".join(f"`{ast.literal_eval(one.strip())}`" for one in found[1].split(","))
    return NUMBERS.get(text, text)


def _shown(value: object) -> str:
    return f"`{value}`" if value not in ("", (), {}, None) else ""


def cell(text: str) -> str:
    """Words as they may stand in a row: <name> and | mean something to Markdown.

    >>> cell("gym:<id> | `a`")
    'gym:&lt;id&gt; &#124; `a`'
    """
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part.replace("|", "\\|")
        if part.startswith("`")
        else part.replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
        for part in parts
    )


def table(kind: type[Any], anchor: str = "") -> list[str]:
    """The fields that a class declares, as rows."""
    rows = ["| option | type | default | what it does |", "|---|---|---|---|"]
    for name, of, default, words in declared(kind):
        flag = name if not default and name in _needed(kind) else f"--{name.replace('_', '-')}"
        mark = f'<span id="{anchor}{name}"></span>' if anchor else ""
        rows.append(f"| {mark}`{flag}` | {cell(of)} | {cell(default)} | {cell(words)} |")
    return rows


def overview() -> str:
    """The page of all commands."""
    apps = ", ".join(f"[{app}]({app}.md)" for app in APPS)
    out = [INTRODUCTION, "", f"What only one app has is on its page: {apps}."]
    for name, kind in OPTIONS.items():
        needs = " ".join(f"{field.upper()}{'...' if field.endswith('s') else ''}" for field in _needed(kind))
        out += ["", f"## {name}", "", " ".join((kind.__doc__ or "").split()), ""]
        out += ["```bash", f"uv run apps/APP {name} {needs}".rstrip(), "```", ""]
        out += table(kind)
        for above in kind.__mro__[1:]:
            if above in OPTIONS.values():
                of = next(other for other, one in OPTIONS.items() if one is above)
                out += ["", f"And the options of [`{of}`](#{of})."]
        if name in ("train", "info"):
            out += ["", "And every field [below](#fields-of-every-run) and of the app."]
    out += ["", "## Fields of every run", "", *table(RunConfig, "field-")]
    return "\n".join(out)


def of_app(name: str) -> str:
    """The page of what one app's commands have of their own."""
    app: App = importlib.import_module(f"{name}.cli").APP
    home = f"../apps/{name}.md"
    out = [f"# Settings of {name}", "", f"Of the app [{name}]({home}); the commands are [those of all](index.md).", ""]
    out += ["## Presets", "", "`--preset NAME`; a machine with a GPU takes "]
    out[-1] += f"`{app.paper}` where none is named, one without takes `cpu`."
    for what, files in (("presets", app.files("presets")), ("ablations", app.files("ablations"))):
        if what == "ablations" and files:
            out += ["", "## Ablations", "", "`--ablation NAME`: what each changes."]
        for file in files.values():
            out += ["", f"### {file.stem}", "", "```toml", file.read_text().rstrip(), "```"]
    if app.sizes:
        names = list(next(iter(app.sizes.values())))
        out += ["", "## Sizes", "", "`--size NAME`", "", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        out += [f"| `{size}` | {' | '.join(str(of[field]) for field in names)} |" for size, of in app.sizes.items()]
    out += ["", "## Fields", ""]
    for kind in app.config.__mro__:
        if kind is RunConfig:
            break
        if dataclasses.is_dataclass(kind):
            out += [*table(kind), ""]
    return "\n".join([*out, "And [the fields of every run](index.md#fields-of-every-run)."])


def pages() -> dict[str, str]:
    """uri -> Markdown of every page about commands."""
    return {"commands/index.md": overview()} | {f"commands/{app}.md": of_app(app) for app in APPS}

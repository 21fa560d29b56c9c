"""The documentation site: what its pages take from the code and the READMEs is there, and the check of the built pages
notices what it is there for. The session `docs` builds all of it; what the builder alone needs is imported in the tests."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
import re
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from book import check, places, source

PAGES = sorted((ROOT / "docs").rglob("*.md"))
APPS = sorted(file.parent.name for file in ROOT.glob("apps/*/pyproject.toml"))


def label(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def navigation() -> list[str]:
    import yaml
    from book.navigation import named, whole

    return named(whole(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))


def test_the_navigation_names_every_page_of_docs_once() -> None:
    named = navigation()
    assert {page.relative_to(ROOT / "docs").as_posix() for page in PAGES} <= {*named}
    assert len({*named}) == len(named)
    assert {f"apps/{app}.md" for app in APPS} | {f"commands/{app}.md" for app in APPS} <= {*named}


def test_a_page_that_nobody_has_placed_comes_last(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from book import navigation

    (tmp_path / "docs").mkdir()
    for name, title in (("index.md", "Start"), ("new.md", "`New` things")):
        (tmp_path / "docs" / name).write_text(f"# {title}\n")
    monkeypatch.setattr(places, "ROOT", tmp_path)
    given = [{"Start": "index.md"}, {"Later": "recordings.md"}]
    assert navigation.whole(given) == [{"Start": "index.md"}, {"More": [{"New things": "new.md"}]}]
    (tmp_path / "docs" / "recordings.md").write_text("# Recordings\n")
    assert navigation.named(navigation.whole(given)) == ["index.md", "recordings.md", "new.md"]
    (tmp_path / "docs" / "steps.ipynb").write_text(
        json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Steps"]}]})
    )
    assert navigation.whole(given)[-1] == {"More": [{"New things": "new.md"}, {"Steps": "steps.md"}]}


def test_a_folder_of_programs_is_a_page(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from book import listings

    (tmp_path / "docs" / "tries").mkdir(parents=True)
    (tmp_path / "docs" / "tries" / "a.py").write_text('"""What it does."""\n\nprint(1)\n')
    monkeypatch.setattr(places, "ROOT", tmp_path)
    (text,) = listings.pages().values()
    assert text.startswith("# Tries\n\n## a.py\n\nWhat it does.\n\n````python\n") and "print(1)\n````" in text


def test_a_notebook_is_a_page_with_its_code_and_what_that_told() -> None:
    from book import notebooks

    cells = [
        {"cell_type": "markdown", "source": ["# A\n", "b"]},
        {"cell_type": "code", "source": ["print(1)\n"], "outputs": [{"text": ["1\n"]}]},
        {
            "cell_type": "code",
            "source": ["2"],
            "outputs": [{"data": {"text/plain": ["2"]}}, {"data": {"image/png": "x"}}],
        },
    ]
    text = notebooks.page({"cells": cells})
    code = "```python\nprint(1)\n```\n\n```text\n1\n```\n\n```python\n2\n```\n\n```text\n2\n```"
    assert text == f"# A\nb\n\n{code}\n"
    assert places.page("docs/first_steps.ipynb") == "first_steps.md"


@pytest.mark.parametrize("app", APPS)
def test_every_method_has_a_page_with_its_departures_and_its_results(app: str) -> None:
    text = (ROOT / "docs" / "methods" / f"{app}.md").read_text()
    assert re.search(
        rf"^<!-- include apps/{app}/README.md#(departures|what-the-paper-leaves-open) -->$", text, re.MULTILINE
    )
    assert "<!-- include docs/results/" in text.partition("\n## What was measured\n")[2]
    assert text.count("$$") > 4 and text.count("<!-- code ") > 4


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_what_a_page_takes_is_there(page: pathlib.Path) -> None:
    from book import directives

    uri = page.relative_to(ROOT / "docs").as_posix()
    text = directives.coded(directives.included(page.read_text(), uri), uri)
    asked = [
        line for line, fenced in places.lines(text) if line.startswith(("<!-- include", "<!-- code")) and not fenced
    ]
    assert asked == []
    formulas = directives.mathematics(text)[1] if uri.startswith("methods/") else []
    assert all(one.startswith("<math") and "merror" not in one for one in formulas)


def test_lines_follow_their_names() -> None:
    shown = source.lines("wm_core.kl.BalancedKL.__call__", "dyn =", "rep =")
    assert shown.splitlines() == [
        "dyn = categorical_kl(post.detach(), prior)",
        "rep = categorical_kl(post, prior.detach())",
    ]
    whole = source.lines("wm_core.kl.BalancedKL")
    assert whole.startswith("class BalancedKL:") and '"""Both' not in whole


@pytest.mark.parametrize(
    ("name", "start", "end", "told"),
    [
        ("wm_core.kl.Nothing", "", "", "kl.py defines no Nothing"),
        ("nowhere.at.all", "", "", "is in no module of ours"),
        ("wm_core.kl.BalancedKL.__call__", "no such line", "", "stands in 0 of its lines"),
        ("wm_core.kl.BalancedKL.__call__", "categorical_kl", "", "stands in 2 of its lines"),
        ("wm_core.kl.BalancedKL.__call__", "rep = categorical", "dyn = categorical", "does not stand after"),
    ],
)
def test_lines_that_are_gone_stop_the_build(name: str, start: str, end: str, told: str) -> None:
    with pytest.raises(source.Gone, match=re.escape(told)):
        source.lines(name, start, end)


def test_a_section_that_is_gone_stops_the_build() -> None:
    from book.directives import included

    with pytest.raises(source.Gone, match="no heading is #nothing; there are dreamer"):
        included("# A\n\n<!-- include apps/dreamer/README.md#nothing -->\n", "a.md")


def test_a_section_comes_with_its_links_and_a_level_below_its_heading() -> None:
    from book.directives import included

    text = included("# A\n\n## B\n\n<!-- include README.md#papers-and-commands -->\n", "methods/a.md")
    assert "\n### Many runs, and a table that can be checked\n" in text
    assert "](../results/papers.md)" in text and "](../packages/wm-suite.md)" in text


def test_formulas_are_drawn_and_shell_variables_are_not() -> None:
    from book.directives import drawn, mathematics

    text, formulas = mathematics("a $x_t$ and `$HOME`\n\n$$y = \\frac{1}{2}$$\n\n```bash\necho $A $B\n```\n")
    assert [one.count("<math") for one in formulas] == [1, 1] and "`$HOME`" in text and "echo $A $B" in text
    assert drawn("<p>FORMULA0END</p>", formulas) == f'<div class="formula" tabindex="0">{formulas[0]}</div>'


def test_the_page_of_commands_has_every_option_and_every_field() -> None:
    from book import commands
    from wm_run.options import OPTIONS

    made = commands.pages()
    for name, kind in OPTIONS.items():
        part = made["commands/index.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        own = [name for above in kind.__mro__ if dataclasses.is_dataclass(above) for name in above.__annotations__]
        shown = part if "And the options of" not in part else made["commands/index.md"]
        assert own and all(re.search(rf"^\| `(--)?{one.replace('_', '-')}` \|", shown, re.MULTILINE) for one in own), (
            name
        )
    for app in APPS:
        config: Any = importlib.import_module(f"{app}.cli").APP.config
        both = made[f"commands/{app}.md"] + made["commands/index.md"]
        for one in dataclasses.fields(config):
            row = re.search(rf"^\| .*`--{one.name.replace('_', '-')}` \|.*\| (.*) \| (.*) \|$", both, re.MULTILINE)
            assert row and row[2].strip(), f"{app}: {one.name} has no row, or no words"


def test_the_pages_of_the_api_have_every_public_name() -> None:
    from book import api

    for package, names in json.loads((ROOT / "tests" / "public.json").read_text()).items():
        assert {home.rpartition(".")[2] for home in api.public(package).values()} >= {*names} - {"eval"}
        for home in api.public(package).values():
            assert f"::: {home}\n" in api.page(package)


# ---- the check of what was built

CLEAN = (
    '<h1 id="a">A</h1><a href="https://example.org/paper">there</a><a href="b.html#b">b</a><img src="p.png" alt="p">'
)
PLANTED = {
    '<script src="https://example.org/x.js"></script>': "loads https://example.org/x.js from elsewhere",
    '<script src="//example.org/x.js"></script>': "loads //example.org/x.js from elsewhere",
    '<link rel="stylesheet" href="https://example.org/x.css">': "loads https://example.org/x.css from elsewhere",
    '<link rel="preconnect" href="https://example.org">': "loads https://example.org from elsewhere",
    "<style>@font-face { src: url('https://example.org/f.woff') }</style>": "loads https://example.org/f.woff from elsewhere",
    '<p style="background: url(https://example.org/b.png)">': "loads https://example.org/b.png from elsewhere",
    '<img src="https://example.org/p.png" alt="p">': "loads https://example.org/p.png from elsewhere",
    '<video poster="https://example.org/v.png"></video>': "loads https://example.org/v.png from elsewhere",
    '<img src="p.png">': "shows p.png without a word",
    '<a href="c.html">c</a>': "leads to c.html: no such file",
    '<a href="b.html#c">c</a>': "leads to b.html#c: no such place",
    '<a href="#c">c</a>': "leads to #c: no such place",
    '<a href="/b.html">b</a>': "an address from the root of a server",
    "<h1>B</h1>": "has 2 titles",
}


def site(folder: pathlib.Path, more: str = "", style: str = "") -> list[str]:
    (folder / "a.html").write_text(CLEAN + more)
    (folder / "b.html").write_text('<h1 id="b">B</h1>')
    (folder / "s.css").write_text(style)
    (folder / "p.png").touch()
    return [*check.faults(folder)]


def test_a_site_in_order_has_no_faults(tmp_path: pathlib.Path) -> None:
    assert site(tmp_path, style="a { background: url(p.png) }") == []
    assert [*check.faults(tmp_path / "nothing")] == [f"{tmp_path / 'nothing'} holds no page"]


@pytest.mark.parametrize("planted", PLANTED)
def test_the_check_notices(tmp_path: pathlib.Path, planted: str) -> None:
    (told,) = site(tmp_path, planted)
    assert told.startswith("a.html ") and PLANTED[planted] in told


@pytest.mark.parametrize("style", ['@import "https://example.org/x.css";', "a { src: url(//example.org/f.woff) }"])
def test_the_check_notices_what_a_style_sheet_loads(tmp_path: pathlib.Path, style: str) -> None:
    (told,) = site(tmp_path, style=style)
    assert told.startswith("s.css loads ") and told.endswith("from elsewhere")

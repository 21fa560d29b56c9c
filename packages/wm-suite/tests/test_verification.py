"""A page against its rows: one changed episode, protocol, number or row is found, and a page may move with its rows."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from wm_suite import SuiteError, passport
from wm_suite.films import Film
from wm_suite.sources import rows_file, run_folders
from wm_suite.suite_page import Plan, Report, render
from wm_suite.verification import verify

sys.path.append(str(Path(__file__).parent))
from suite_rows import paged, planned, row, written


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Two arms on a task, two seeds each, one of them not run; rows and page in folders of one folder."""
    rows = [row("t", arm, seed, [1.0, float(seed)], won=[0, 1]) for arm, seed in (("a", 0), ("a", 1), ("b", 0))]
    cells = (*planned("t", "a", range(2)), *planned("t", "b", range(2)))
    (tmp_path / "all").mkdir()
    paged(written(tmp_path / "all/rows/rows.jsonl", rows), tmp_path / "all/page.html", cells=cells, outcome="won")
    return tmp_path / "all/page.html"


def rows_of(page: Path) -> Path:
    return page.parent / "rows/rows.jsonl"


def change(page: Path, line: int, **fields: Any) -> None:
    """Of one row."""
    rows = [json.loads(one) for one in rows_of(page).read_text().splitlines()]
    rows[line - 1] |= fields
    written(rows_of(page), rows)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_page_is_what_its_rows_give_wherever_it_is_moved_with_them(page, tmp_path):
    assert verify(page).problems == () and verify(page).rows == 3 and verify(page).numbers == 10
    shutil.move(page.parent, tmp_path / "elsewhere")
    found = verify(tmp_path / "elsewhere/page.html")
    assert found.problems == () and found.notes == ()


def test_one_changed_episode_is_found_with_every_number_that_it_changes(page):
    change(page, 2, trained=[1.0, 1.5])
    problems = verify(page).problems
    assert "the row of a on t, seed 1 has changed: trained (number 2 was 1.0, now 1.5)" in problems
    assert any(
        one.startswith("the page says 0.75 ± 0.25 where its rows give 0.88 ± 0.38: score: a on t ") for one in problems
    )
    assert not any("score: b on t" in one for one in problems)


def test_a_change_too_small_to_be_seen_is_found(page):
    change(page, 2, trained=[1.0, 1.0 + 1e-6])
    problems = "\n".join(verify(page).problems)
    assert "trained (number 2 was 1.0, now 1.000001)" in problems
    assert re.search(
        r"the page's passport says 0.75 ± 0.25 \(mean 0.75, .* where its rows give 0.75 ± 0.25 \(mean 0.75000025",
        problems,
    )


def test_one_changed_protocol_value_is_found_and_parts_what_was_averaged(page):
    change(page, 1, protocol={"sticky": 0.0, "noops": 30, "task": "t"})
    problems = verify(page).problems
    assert "the row of a on t, seed 0 has changed: protocol.sticky (was 0.25, now 0.0)" in problems
    assert "the page has a number that its rows do not give: score: a on t" in problems


@pytest.mark.parametrize(
    "field, value",
    [
        ("commit", "9"),
        ("config", "9"),
        ("command", ["x"]),
        ("hardware", {"cpu": "y", "cores": 2, "gpus": []}),
        ("wall_s", 61),
    ],
)
def test_what_a_number_does_not_depend_on_is_held_too(page, field, value):
    change(page, 3, **{field: value})
    (*_, problem) = [one for one in verify(page).problems if one.startswith("the row of b on t, seed 0 has changed")]
    assert field in problem


def test_a_dropped_row_is_found(page):
    lines = rows_of(page).read_text().splitlines()
    rows_of(page).write_text("\n".join(lines[1:]) + "\n")
    problems = verify(page).problems
    assert problems[0] == "the row of a on t, seed 0 is gone from rows/rows.jsonl"
    assert any("the page says 0.75 ± 0.25 where its rows give 1.00" in one for one in problems)
    assert not any("b on t" in one for one in problems)


def test_a_row_that_came_later_is_found(page):
    with rows_of(page).open("a") as file:
        file.write(json.dumps(row("t", "b", 1, [9.0])) + "\n")
    assert verify(page).problems[0] == "the page lacks the row of b on t, seed 1, line 4 of rows/rows.jsonl"


def test_rows_that_say_the_same_in_other_bytes_are_told(page):
    edit(rows_of(page), '"seed": 1', '"seed":  1')
    (problem,) = verify(page).problems
    assert "rows/rows.jsonl is not byte for byte" in problem and "line 2" in problem


def test_one_number_changed_in_the_page_is_found(page):
    edit(page, ">0.75 ± 0.25</button>", ">0.76 ± 0.25</button>")
    (problem,) = verify(page).problems
    assert problem.startswith(
        "the page says 0.76 ± 0.25 where its rows give 0.75 ± 0.25: score: a on t (mean of trained over 2 seeds"
    )


def test_one_point_of_a_chart_changed_is_found(page):
    edit(page, "&quot;mean&quot;: [0.075,", "&quot;mean&quot;: [0.079,")
    (problem,) = verify(page).problems
    assert problem.startswith(
        "the page draws another chart than its rows give: curves: t, chart (mean training score over seeds"
    )


@pytest.mark.parametrize(
    "old, new",
    [("2 seeds, 4 episodes", "9 seeds, 4 episodes"), ("not run", "was run"), (">Win rates</h2>", ">win rates</h2>")],
)
def test_anything_else_changed_in_the_page_is_found(page, old, new):
    edit(page, old, new)
    (problem,) = verify(page).problems
    assert problem.startswith("the page says ...") and new in problem and old in problem


def test_a_passport_changed_in_the_page_or_beside_it_is_found(page):
    text = page.read_text()
    edit(page, '"sticky":0.25', '"sticky":0.5')
    problems = verify(page).problems
    assert "page.json differs from the passport in the page (samples)" in problems
    assert "the page's passport of a on t, seed 0 has changed: protocol.sticky (was 0.5, now 0.25)" in problems
    page.write_text(text)
    edit(page.with_suffix(".json"), "0.75", "0.751")
    assert verify(page).problems == ("page.json differs from the passport in the page (numbers)",)
    page.with_suffix(".json").unlink()
    assert verify(page).problems == () and "page.json does not lie beside the page" in verify(page).notes[0]


def test_a_page_without_its_rows_is_told(page):
    rows_of(page).unlink()
    assert verify(page).problems == ("rows/rows.jsonl is not there: a page is moved together with its rows",)


def test_of_a_page_of_another_version_the_numbers_are_compared_and_the_look_is_not(page):
    edit(page, '"wm-suite":"', '"wm-suite":"9.')
    edit(page, ">Win rates</h2>", ">win rates</h2>")
    page.with_suffix(".json").unlink()
    found = verify(page)
    assert found.problems == () and "its numbers are compared, its look is not" in found.notes[-1]
    change(page, 2, trained=[1.0, 1.5])
    assert any("where its rows give 0.88" in one for one in verify(page).problems)


def test_what_is_no_such_page_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "page.html").write_text("<p>hello")
    with pytest.raises(SuiteError, match="holds no passport: name a page that `wm-suite report` wrote"):
        verify(tmp_path / "page.html")
    with pytest.raises(SuiteError, match="cannot be read"):
        verify(tmp_path / "missing.html")


def test_films_are_held_by_their_hash(page):
    source, samples = rows_file(rows_of(page))
    films = {samples[0].name: (Film("a/video/policy-9.png", 4, b"film"), Film("a/video/long-9.mp4", 10**8, None))}
    html, told = render(Report(Plan("A suite"), (source,), ("rows/rows.jsonl",), tuple(samples), films))
    page.write_text(html)
    page.with_suffix(".json").write_text(json.dumps(told))
    assert verify(page).problems == () and "a on t, worst seed 0 (0.50)" in html and "100.0 MB, left out" in html
    edit(page, "ZmlsbQ==", "ZmlsbA==")
    assert "a/video/policy-9.png in the page is not the film that it was made with" in verify(page).problems


# ---- folders of any project


def foreign(folder: Path, scores: list[float], yaml: str = "") -> Path:
    """As danijar's agents leave it: scores.jsonl, and a config.yaml."""
    folder.mkdir(parents=True)
    (folder / "scores.jsonl").write_text(
        "".join(json.dumps({"step": 100 * i, "episode/score": one}) + "\n" for i, one in enumerate(scores, 1))
    )
    if yaml:
        (folder / "config.yaml").write_text(yaml)
    return folder


def test_folders_of_any_project_make_a_page_that_verifies(tmp_path):
    for seed in (0, 1):
        foreign(tmp_path / f"runs/20260101T000000-atari_pong-dreamerv3-{seed}", [0.0] * 9 + [float(seed)])
        foreign(tmp_path / f"runs/atari_pong/other/{seed}", [3.0] * 10, "logdir: x\n")
    foreign(tmp_path / "runs/mine", [5.0] * 10, "task: 'atari_boxing'\nmethod: mine\nseed: 7\nrun:\n  seed: 3\n")
    sources, samples, _ = run_folders([tmp_path / "runs"])
    assert sorted(one.key for one in samples) == [
        ("atari_boxing", "mine", 7), ("atari_pong", "dreamerv3", 0), ("atari_pong", "dreamerv3", 1), ("atari_pong", "other", 0), ("atari_pong", "other", 1),
    ]  # fmt: skip
    paths = tuple(one.path.relative_to(tmp_path).as_posix() for one in sources)
    html, told = render(Report(Plan("Runs", score="score"), tuple(sources), paths, tuple(samples)))
    (tmp_path / "page.html").write_text(html)
    (tmp_path / "page.json").write_text(json.dumps(told))
    assert told["numbers"]["score: dreamerv3 on atari_pong"]["values"]["mean"] == 0.5  # of the last tenth
    assert verify(tmp_path / "page.html").problems == ()
    edit(
        tmp_path / "runs/mine/scores.jsonl",
        '{"step": 1000, "episode/score": 5.0}',
        '{"step": 1000, "episode/score": 6.0}',
    )
    assert any(
        "the row of mine on atari_boxing, seed 7 has changed" in one for one in verify(tmp_path / "page.html").problems
    )
    shutil.rmtree(tmp_path / "runs/mine")
    assert verify(tmp_path / "page.html").problems == (
        "runs/mine is not there: a page is moved together with what it was made from",
    )


@pytest.mark.parametrize("value, says", [(1234.5, "1,234"), (float("nan"), "?"), (-0.004, "-0.004")])
def test_a_number_is_said_in_few_characters(value, says):
    assert passport.said(value) == says

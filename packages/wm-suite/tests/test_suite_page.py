"""What the page of a suite holds: scores with their seeds, what is unlike marked, what is not there said."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wm_suite import SuiteError, aggregate
from wm_suite.cells import Sample, board, newest
from wm_suite.document import STYLE, shipped
from wm_suite.normalise import normalised
from wm_suite.printed import printed
from wm_suite.verification import verify

sys.path.append(str(Path(__file__).parent))
from suite_rows import paged, planned, row, written


def shown(tmp_path: Path, rows: list[dict[str, Any]], **plan: Any) -> tuple[str, dict[str, Any]]:
    """Page and passport."""
    passport = paged(written(tmp_path / "rows.jsonl", rows), tmp_path / "page.html", **plan)
    return (tmp_path / "page.html").read_text(), passport


def values(passport: dict[str, Any], key: str) -> dict[str, Any]:
    found: dict[str, Any] = passport["numbers"][key]["values"]
    return found


class Tags(HTMLParser):
    """Tags with their attributes; wrongly nested ones are an error."""

    VOID = frozenset({"meta", "link", "img", "br", "line", "polyline", "polygon", "circle"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, tag


# ---- numbers


def test_a_score_is_the_mean_over_seeds_and_not_over_episodes(tmp_path):
    """Seeds 1 and 3, however many episodes each has: mean 2, standard error 1."""
    page, passport = shown(tmp_path, [row("t", "a", 0, [1.0] * 99), row("t", "a", 1, [2.0, 4.0])])
    assert values(passport, "score: a on t") == {"mean": 2.0, "error": 1.0}
    assert ">2.00 ± 1.00</button>" in page and "2 seeds, 101 episodes" in page
    assert values(passport, "score: a on t, seed 1") == {"mean": 3.0}


def test_one_seed_has_no_interval(tmp_path):
    page, passport = shown(tmp_path, [row("t", "a", 0, [1.0, 2.0])])
    assert values(passport, "score: a on t") == {"mean": 1.5, "error": None} and ">1.50</button>" in page


def test_a_score_that_is_one_number_counts_no_episodes(tmp_path):
    page, passport = shown(tmp_path, [row("t", "a", seed, float(seed)) for seed in (1, 3)])
    assert (
        values(passport, "score: a on t")["mean"] == 2.0
        and passport["numbers"]["score: a on t, seed 1"]["how"] == "seed 1: trained"
    )
    assert "2 seeds</small>" in page and "episode" not in page.partition("<h2")[2].partition("<script")[0]


def test_the_last_row_of_a_run_counts():
    rows = [row("t", "a", 0, [1.0]), row("t", "a", 1, [1.0]), row("t", "a", 0, [5.0])]
    found = newest([Sample(one, 0, i) for i, one in enumerate(rows, 1)])
    assert sorted((one.key[2], one.line) for one in found) == [(0, 3), (1, 2)]


def test_other_fields_of_numbers_stand_beside_the_score(tmp_path):
    _, passport = shown(tmp_path, [row("t", "a", seed, [1.0], random=[-1.0, seed]) for seed in (0, 1)])
    assert values(passport, "beside, random: a on t")["mean"] == -0.25
    assert values(passport, "beside, curve: a on t")["mean"] == pytest.approx(0.95)  # of steps 900 and 1000
    assert not any(key.startswith("beside, step") for key in passport["numbers"])


def test_win_rates_have_wilsons_interval_over_all_episodes(tmp_path):
    rows = [row("t", "a", seed, [0.0, 0.0], won=won) for seed, won in ((0, [1, 1]), (1, [0, 1]))]
    page, passport = shown(tmp_path, rows, outcome="won")
    found = values(passport, "share of won: a on t")
    assert (found["value"], round(found["low"], 4), round(found["high"], 4)) == (0.75, 0.3006, 0.9544)
    assert "75.0% [30.1%, 95.4%]" in page and "share of won: a on t" in passport["numbers"]


def test_an_outcome_that_is_no_win_is_told(tmp_path):
    with pytest.raises(SuiteError, match=r"'won' of a on t is no win rate: an outcome is 0\.5"):
        shown(tmp_path, [row("t", "a", 0, [0.0], won=[0.5])], outcome="won")


def test_aggregates_are_those_of_normalised_scores(tmp_path):
    games = ["atari100k_pong", "atari100k_boxing"]
    scores = {"atari100k_pong": [1.0, 5.0], "atari100k_boxing": [3.0, 12.0]}
    rows = [row(game, "a", seed, [scores[game][seed]]) for game in games for seed in (0, 1)]
    page, passport = shown(tmp_path, rows, normalise="atari_human")
    table = [normalised(scores[game], game, "atari_human") for game in games]
    wanted = aggregate.estimate(aggregate.interquartile_mean, table)
    found = values(passport, "interquartile mean over tasks: a")
    assert found == pytest.approx({"value": wanted.value, "low": wanted.low, "high": wanted.high})
    assert "Performance profiles" in page


def test_an_arm_without_some_tasks_is_marked_in_aggregates(tmp_path):
    rows = [row(game, arm, seed, [1.0 + seed]) for game, arm in (("atari100k_pong", "a"), ("atari100k_boxing", "a"), ("atari100k_pong", "b")) for seed in (0, 1)]  # fmt: skip
    page, passport = shown(tmp_path, rows, normalise="atari_human")
    assert "b has scores on 1 of 2 tasks: it does not compare with arms on all" in page
    assert passport["numbers"]["improvement: a over b"]["of"] == [
        f"{arm} on atari100k_pong, seed {seed}" for arm in "ab" for seed in (0, 1)
    ]
    assert values(passport, "improvement: a over b")["value"] == 0.5


def test_a_task_without_reference_is_named_and_in_no_aggregate(tmp_path):
    rows = [row(game, "a", seed, [1.0 + seed]) for game in ("atari100k_pong", "toy:catch") for seed in (0, 1)]
    page, passport = shown(tmp_path, rows, normalise="atari_human")
    assert "No reference scores, hence in no aggregate: toy:catch" in page
    assert "over 1 task, 2 runs" in passport["numbers"]["mean over tasks: a"]["how"]


def test_printed_scores_stand_beside_marked_and_in_no_number(tmp_path):
    rows = [row("atari100k_pong", "a", 0, [1.0])]
    page, passport = shown(tmp_path, rows, printed=("var_table1",))
    table = printed("var_table1")
    assert f'<td class="printed">{table.score("atari100k_pong", "DreamerV3"):g}</td>' in page
    assert f"as printed in {table.source}, 5 seeds" in page and page.count('"gap">printed<') == len(table.methods)
    assert all("DreamerV3" not in key for key in passport["numbers"])
    assert (
        "prints nothing of these tasks"
        in shown(tmp_path, [row("toy:catch", "a", 0, [1.0])], printed=("var_table1",))[0]
    )


# ---- what is unlike


def test_seeds_of_different_protocols_are_never_averaged_and_every_entry_says_its_own(tmp_path):
    rows = [row("t", arm, seed, [float(seed)]) for arm in "ab" for seed in (0, 1)]
    rows[1]["protocol"] = {**rows[1]["protocol"], "sticky": 0.0}
    page, passport = shown(tmp_path, rows)
    scores = {
        key: one["values"]["mean"] for key, one in passport["numbers"].items() if re.fullmatch(r"score: [^,]*", key)
    }
    assert scores == {
        "score: a on t [sticky 0.25]": 0.0,
        "score: a on t [sticky 0.0]": 1.0,
        "score: b on t [sticky 0.25]": 0.5,
    }
    assert "The scores of t do not compare: sticky 0.25 or 0.0" in page
    assert page.count('<small class="unlike">sticky 0.25</small>') >= 2
    labels = [line["label"] for line in values(passport, "curves: t, chart")["chart"]["lines"]]
    assert labels == ["a [sticky 0.25]", "a [sticky 0.0]", "b [sticky 0.25]"]


def test_unlike_protocols_are_in_no_aggregate(tmp_path):
    rows = [
        row(game, arm, seed, [1.0 + seed])
        for game in ("atari100k_pong", "atari100k_boxing")
        for arm in "ab"
        for seed in (0, 1)
    ]
    rows[0]["protocol"] = {**rows[0]["protocol"], "sticky": 0.0}
    page, passport = shown(tmp_path, rows, normalise="atari_human")
    assert "Its conditions differ between entries, hence in no aggregate: atari100k_pong" in page
    assert {name.split()[2] for name in passport["numbers"]["mean over tasks: a"]["of"]} == {"atari100k_boxing,"}


def test_another_measure_is_another_protocol():
    rows = [Sample(row("t", arm, 0, [1.0], measure=f"m:{arm}")) for arm in "ab"]
    assert [one.mark for one in board(rows).all()] == ["measured by m:a", "measured by m:b"]


def test_a_row_without_protocol_is_marked_beside_rows_with_one_and_told_where_none_has(tmp_path):
    rows = [row("t", arm, 0, [1.0]) for arm in "ab"]
    for name in ("protocol", "measure"):
        del rows[0][name]
    assert [one.mark for one in board([Sample(one) for one in rows]).all()] == ["protocol not recorded", ""]
    page, _ = shown(tmp_path, rows[:1])
    assert "Of none of these rows the protocol was recorded" in page and "not recorded" in page


@pytest.mark.parametrize(
    "change, says",
    [
        ({"config": "other"}, "seeds of different configurations (digest-a of 0; other of 1)"),
        ({"ended": "time", "step": 700}, "seed 1 was ended by its limit of wall time at step 700"),
        ({"step": 2000}, "seeds of 1,000 and 2,000 steps"),
        (
            {"settings": {"app": "a", "preset": "tiny", "options": {"steps": 40}}},
            "seed 1 was made with other settings than the suite's: steps 40, the suite says none",
        ),
    ],
)
def test_seeds_that_are_unlike_are_marked(tmp_path, change, says):
    rows = [row("t", "a", 0, [1.0]), row("t", "a", 1, [1.0], **change)]
    page, _ = shown(tmp_path, rows, cells=planned("t", "a", range(2)))
    assert says in page.replace("&#x27;", "'")
    assert '<sup><a href="#score-note-1">1</a>' in page
    assert "score-note" not in shown(tmp_path, [rows[0], row("t", "a", 1, [1.0])], cells=planned("t", "a", range(2)))[0]


def test_arms_of_different_budgets_are_marked(tmp_path):
    rows = [row("t", "a", 0, [1.0]), row("t", "b", 0, [1.0], step=10_000), row("u", "a", 0, [1.0])]
    page, _ = shown(tmp_path, rows)
    assert "after 1,000 steps, others on this task after 10,000" in page and "after 10,000 steps, others" in page
    assert page.count("<sup>") == 2  # none on u
    rows[1]["step"] = 1002
    assert "others on this task" not in shown(tmp_path, rows)[0]


def test_an_arm_of_different_settings_on_different_tasks_is_marked(tmp_path):
    long = {"app": "a", "preset": "tiny", "options": {"length": 128}}
    rows = [row("t", "a", 0, [1.0]), row("u", "a", 0, [1.0], settings=long), row("u", "b", 0, [1.0])]
    page, _ = shown(tmp_path, rows)
    assert "other settings than on other tasks: length not given" in page and "length 128" in page
    assert page.count("<sup>") == 2  # none at b


# ---- what is not there


def test_what_was_not_run_or_failed_is_a_cell_that_says_so(tmp_path):
    failed = replace(planned("t", "a", range(1, 2))[0], state="failed", detail="OutOfMemoryError: no <room>")
    cells = (*planned("t", "a", range(1)), failed, *planned("u", "a", range(3)), *planned("t", "b", range(1)))
    page, passport = shown(tmp_path, [row("t", "a", 0, [1.0])], cells=cells)
    assert "1 of 6 runs" in page and "5 runs without a row" in page
    assert "seed 1 failed: OutOfMemoryError: no &lt;room&gt;" in page
    assert page.count('<small class="gap">not run</small>') == 2  # b on t, and a on u
    assert '<span class="gap">not planned</span>' in page  # b on u
    assert values(passport, "score: a on t")["error"] is None


def test_a_row_without_the_score_is_told_and_in_no_mean(tmp_path):
    page, passport = shown(tmp_path, [row("t", "a", 0, [1.0]), row("t", "a", 1, [])])
    assert values(passport, "score: a on t")["mean"] == 1.0
    assert "The row of a on t, seed 1, has no numbers in" in page


def test_rows_that_the_suite_does_not_plan_are_named_and_left_out(tmp_path):
    page, passport = shown(
        tmp_path, [row("t", "a", 0, [1.0]), row("t", "old", 0, [1.0])], cells=planned("t", "a", range(1))
    )
    assert "Left out, for the suite has no such arm and task: old on t" in page
    assert "score: old on t" not in passport["numbers"]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"arm": None}, "it says no arm that could be one"),
        ({"seed": True}, "it says no seed"),
        ({"settings": {"options": [1]}}, "its settings are no table"),
        ({"step": "x"}, "its step is no number"),
        ({"step": 10**400}, "its step is no number"),
        ({"curve": 3}, "its curve is no list"),
        ({"curve": [[1, 2, 3]]}, "its curve is no list"),
        ({"curve": [["x", 1]]}, "its curve is no list"),
        ({"curve": [[5, 10**400]]}, "its curve is no list"),
    ],
)
def test_a_row_that_is_none_is_told_by_its_line(tmp_path, change, says):
    with pytest.raises(SuiteError, match=f"row 2 is none that a page can be made of: {says}"):
        shown(tmp_path, [row("t", "a", 0, [1.0]), row("t", "a", 1, [1.0]) | change])


@pytest.mark.parametrize(
    "field", ["trained", "protocol", "hardware", "versions", "command", "commit", "config", "ended", "other"]
)
@pytest.mark.parametrize(
    "value", [None, True, 10**400, float("nan"), "x", [], [None], [[1]], {}, {"a": {"b": [1]}}], ids=str
)
def test_what_else_a_row_may_say_makes_no_page_fail(tmp_path, field, value):
    shown(
        tmp_path, [row("t", "a", 0, [1.0]), row("t", "a", 1, [1.0]) | {field: value}], cells=planned("t", "a", range(2))
    )
    assert verify(tmp_path / "page.html").problems == ()


# ---- the page itself


def test_every_number_has_a_passport_with_its_rows(tmp_path):
    page, passport = shown(tmp_path, [row("t", "a", seed, [1.0, 2.0]) for seed in (0, 1)])
    parsed = Tags(page)
    keys = [found["data-n"] for _, found in parsed.tags if "data-n" in found]
    drawn = [found["data-chart-of"] for _, found in parsed.tags if "data-chart-of" in found]
    assert sorted(filter(None, keys + drawn)) == sorted(passport["numbers"]) and len(set(keys)) == len(keys)
    assert all(one["of"] and one["how"] for one in passport["numbers"].values())
    behind = passport["samples"]["a on t, seed 0"]
    assert behind["row"] == row("t", "a", 0, [1.0, 2.0]) and behind["line"] == 1
    inside = re.search(r'<script type="application/json" id="passport">(.*?)</script>', page)
    assert inside and json.loads(inside[1]) == passport == json.loads((tmp_path / "page.json").read_text())


def test_the_page_asks_for_nothing_and_hostile_names_stay_text(tmp_path):
    name = '</script><script>alert(1)</script>"'
    failed = replace(planned("t", name, range(1, 2))[0], state="failed", detail=name)
    cells = (*planned("t", name, range(1)), failed)
    page, _ = shown(tmp_path, [row("t", name, 0, [1.0], won=[1])], cells=cells, outcome="won", suite=name)
    parsed = Tags(page)
    assert not re.search(r"url\(|@import|https?://|fetch\(|import\(|innerHTML", page)
    assert [tag for tag, _ in parsed.tags].count("script") == 2 and "<script>alert" not in page
    addresses = [found[name] for _, found in parsed.tags for name in ("src", "href") if name in found]
    assert all(str(one).startswith(("data:", "#")) for one in addresses)


def test_the_same_rows_give_the_same_page_to_the_byte(tmp_path):
    rows = [row(game, arm, seed, [1.0 + seed]) for game in ("atari100k_pong", "t") for arm in "ab" for seed in (0, 1)]
    pages = [shown(tmp_path, rows, normalise="atari_human", printed=("var_table1",))[0] for _ in range(2)]
    assert pages[0] == pages[1]


def test_what_does_not_see_is_told_and_what_has_no_mouse_can_go_everywhere(tmp_path):
    """Every chart says what it shows, every drawing beside a number is hidden, every region that scrolls takes the focus."""
    parsed = Tags(shown(tmp_path, [row("t", arm, seed, [1.0, 2.0]) for arm in "ab" for seed in (0, 1)])[0])
    drawings = [found for tag, found in parsed.tags if tag == "svg"]
    assert drawings and all(one.get("aria-label") or one.get("aria-hidden") == "true" for one in drawings)
    assert any("a ends at 1.50; b ends at 1.50" in (one.get("aria-label") or "") for one in drawings)
    regions = [found for _, found in parsed.tags if found.get("class") == "wide"]
    assert regions and all(one.get("tabindex") == "0" and one.get("aria-label") for one in regions)
    heads = [found for tag, found in parsed.tags if tag == "th"]
    assert heads and all(one.get("scope") in ("row", "col") for one in heads)
    assert all(tag == "button" for tag, found in parsed.tags if found.get("class") == "n")


def luminance(colour: str) -> float:
    """Of WCAG 2, of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * one for one in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    return float(
        np.dot([p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts], [0.2126, 0.7152, 0.0722])
    )


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_and_lines_stand_out_from_what_is_behind_them(scheme):
    """4.5 to 1 for text, 3 to 1 for lines, as WCAG 2 has it."""
    colours: dict[str, str] = {}
    for sheet in (STYLE, shipped("suite.css")):
        colours |= dict(
            re.findall(
                r"(--\w+):(#\w+)",
                "".join(sheet.split("@media(prefers-color-scheme:dark)")[scheme : scheme + 1]).split("}}")[0],
            )
        )

    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(colours[one]), luminance(colours[other])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    text = [(name, "--bg") for name in ("--fg", "--soft", "--bad")] + [("--fg", "--mark")]
    assert {pair: round(contrast(*pair), 2) for pair in text if contrast(*pair) < 4.5} == {}
    lines = [(f"--c{i}", "--bg") for i in range(8)]
    assert {pair: round(contrast(*pair), 2) for pair in lines if contrast(*pair) < 3} == {}


def test_rows_without_a_plan_say_what_they_lack(tmp_path):
    page, _ = shown(tmp_path, [row("t", "a", 0, [1.0]), row("u", "b", 0, [1.0])])
    assert page.count('<span class="gap">no row</span>') == 2 and "not planned" not in page


def test_numbers_keep_apart_whatever_arms_tasks_and_fields_are_called(tmp_path):
    """An arm called as an arm on a task, a field called score."""
    rows = [row("c", "a on b", 0, [1.0], score=[5.0]), row("b on c", "a", 1, [2.0], score=[6.0])]
    page, passport = shown(tmp_path, rows)
    found = [one["values"]["mean"] for name, one in passport["numbers"].items() if name.startswith("score: ")]
    assert found == [1.0, 2.0] and len(re.findall('data-n="score: a on b on c', page)) == 2
    rows[1]["seed"] = 0
    with pytest.raises(SuiteError, match="two runs are both called 'a on b on c, seed 0': give an arm another name"):
        shown(tmp_path, rows)

"""What is averaged with what, what a curve says, and a page that needs nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wm_suite import Curve, Group, SuiteError, document, export, films, finals, find, group, picture, read, report
from wm_suite.chart import Line, svg
from wm_suite.statistics import binned, over_seeds


def made(
    logdir: Path, seed: int, scores: list[tuple[int, float]], *, app: str = "one", task: str = "t:x", **changes: Any
) -> Path:
    """A run folder with these scores; changes are fields of the config, `protocol`, or `resumable`, which a run of today
    names itself."""
    logdir.mkdir(parents=True)
    run = {"app": app, "version": "1", "preset": "", "size": "", "ablation": changes.pop("ablation", "")}
    run |= {name: changes.pop(name) for name in ("resumable",) if name in changes}
    protocol = {"task": task, "repeat": 1, **changes.pop("protocol", {})}
    config = {"task": task, "seed": seed, "steps": 100, "lr": 0.1, **changes}
    lines = [f"{name} = {json.dumps(value)}" for name, value in config.items()]
    lines += ["[run]", *(f"{name} = {json.dumps(value)}" for name, value in run.items())]
    (logdir / "config.toml").write_text("\n".join(lines))
    (logdir / "protocol.json").write_text(json.dumps(protocol))
    log(logdir / "scores.jsonl", [(step, {"episode/score": score, "episode/length": 7}) for step, score in scores])
    return logdir


def log(path: Path, rows: list[tuple[int, dict[str, Any]]]) -> None:
    path.write_text("".join(json.dumps({"step": step, **values}) + "\n" for step, values in rows))


def groups(*logdirs: Path, mixed: bool = False) -> list[Group]:
    return group([read(one) for one in logdirs], mixed=mixed)[0]


# ---- numbers


def test_the_interval_is_one_standard_error_over_seeds():
    """Scores 1, 2, 6: mean 3, variance 7, standard error sqrt(7 / 3)."""
    mean, error, count = over_seeds(np.array([[1.0, 4.0], [2.0, np.nan], [6.0, np.nan]]))
    assert mean.tolist() == [3.0, 4.0] and count.tolist() == [3, 1]
    assert error[0] == pytest.approx((7 / 3) ** 0.5) and np.isnan(error[1])


def test_a_span_is_the_mean_of_what_ended_in_it():
    steps, scores = np.array([10.0, 25.0, 26.0, 50.0, 100.0]), np.array([1.0, 3.0, 5.0, 8.0, 9.0])
    assert binned(steps, scores, 100, 4).tolist() == [2.0, 6.5, 6.5, 9.0]  # (0,25] (25,50] nothing (75,100]


def test_a_run_that_has_not_come_so_far_has_no_value_there():
    late = binned(np.array([60.0]), np.array([2.0]), 100, 4)
    assert np.isnan(late[[0, 1, 3]]).all() and late[2] == 2.0


def test_an_interval_without_any_reward_is_a_gap_but_a_long_episode_is_none():
    values = np.array([1.0, np.nan, 3.0])
    assert np.isnan(binned(np.array([25.0, 50.0, 100.0]), values, 100, 4)[1:3]).all()
    assert binned(np.array([25.0, 100.0]), values[[0, 2]], 100, 4).tolist() == [1.0, 1.0, 1.0, 3.0]


def test_the_final_score_is_the_mean_of_the_last_tenth(tmp_path):
    run = read(made(tmp_path / "a", 0, [(50, 0.0), (90, 1.0), (91, 2.0), (100, 4.0)]))
    assert run.final() == (3.0, 2)


def test_episodes_do_not_count_as_seeds(tmp_path):
    """A thousand episodes of two seeds: the error is that of two numbers, 1 and 3."""
    made(tmp_path / "a", 0, [(100, 1.0)] * 1000)
    made(tmp_path / "b", 1, [(100, 3.0)] * 10)
    (one,) = groups(tmp_path / "a", tmp_path / "b")
    row = finals(one)
    assert (row["score"], row["error"], row["seeds"], row["episodes"]) == (2.0, pytest.approx(1.0), 2, 1010)


# ---- groups


def test_seeds_join_and_everything_that_makes_a_method_parts(tmp_path):
    scores = [(50, 1.0), (100, 2.0)]
    for name, seed, changes in [
        ("a", 0, {}),
        ("b", 1, {"steps": 200, "device": "cuda", "log_every": 7}),  # may differ: a resumed run may change it
        ("c", 0, {"lr": 0.2}),
        ("d", 0, {"ablation": "none"}),
        ("e", 0, {"app": "two"}),
        ("f", 0, {"task": "t:y"}),
    ]:
        made(tmp_path / name, seed, scores, **changes)
    found = {(one.task, one.label): one.seeds for one in groups(*find([tmp_path]))}
    assert found == {
        ("t:x", "one lr 0.1"): [0, 1],
        ("t:x", "one lr 0.2"): [0],
        ("t:x", "one none"): [0],
        ("t:x", "two"): [0],
        ("t:y", "one"): [0],
    }


def test_a_field_that_an_older_run_does_not_know_parts_nothing(tmp_path):
    made(tmp_path / "old", 0, [(100, 1.0)])
    made(tmp_path / "new", 1, [(100, 1.0)], later=3)
    assert [one.seeds for one in groups(tmp_path / "old", tmp_path / "new")] == [[0, 1]]


def test_of_two_runs_with_one_seed_the_longer_counts(tmp_path):
    made(tmp_path / "short", 3, [(50, 1.0)])
    made(tmp_path / "long", 3, [(50, 5.0), (100, 5.0)])
    found, notes = group([read(tmp_path / "long"), read(tmp_path / "short")])
    assert [run.logdir.name for run in found[0].runs] == ["long"]
    assert len(notes) == 1 and "is left out" in notes[0]


def test_different_protocols_are_refused_or_marked_and_never_averaged(tmp_path):
    made(tmp_path / "a", 0, [(100, 1.0)], protocol={"sticky": 0.25, "noops": 30})
    made(tmp_path / "b", 1, [(100, 9.0)], protocol={"sticky": 0.0, "noops": 30})
    runs = [read(tmp_path / name) for name in "ab"]
    with pytest.raises(SuiteError, match=r"sticky: 0.25 or 0.0.*--mixed"):
        group(runs)
    found, notes = group(runs, mixed=True)
    assert [one.label for one in found] == ["one [sticky 0.0]", "one [sticky 0.25]"]
    assert "different protocols" in notes[0]
    page = report.page(found, notes)
    assert page.count("one [sticky 0.25]") >= 3 and 'class="mark"' in page


def test_other_tasks_may_have_other_protocols(tmp_path):
    made(tmp_path / "a", 0, [(100, 1.0)], protocol={"sticky": 0.25})
    made(tmp_path / "b", 0, [(100, 1.0)], task="t:y", protocol={"size": 8})
    assert len(groups(tmp_path / "a", tmp_path / "b")) == 2


# ---- reading


def test_a_run_that_still_grows_is_read_to_its_last_whole_line(tmp_path):
    made(tmp_path / "a", 0, [(50, 1.0), (100, 2.0)])
    with (tmp_path / "a/scores.jsonl").open("a") as file:
        file.write('{"step": 150, "episode/sc')
    assert read(tmp_path / "a").reached == 100


def test_a_broken_line_in_the_middle_is_told(tmp_path):
    made(tmp_path / "a", 0, [(50, 1.0)])
    (tmp_path / "a/scores.jsonl").write_text('nonsense\n{"step": 1, "episode/score": 2}\n')
    with pytest.raises(SuiteError, match=r"line 1 of .*scores.jsonl is not JSON"):
        read(tmp_path / "a")


def test_folders_of_runs_are_searched(tmp_path):
    for name in ("x/a", "x/b"):
        made(tmp_path / name, 0, [(1, 1.0)])
    assert [path.name for path in find([tmp_path, tmp_path / "x/a"])] == ["a", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SuiteError, match="no run in"):
        find([tmp_path / "empty"])


# ---- the page


class Page(HTMLParser):
    """Every address and tag of a page; wrongly nested tags are an error."""

    VOID = frozenset({"meta", "link", "img", "br", "line", "polyline", "polygon", "circle"})
    LOOSE = frozenset({"td", "th"})  # whose end tags may be left out

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID | self.LOOSE:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID | self.LOOSE:
            assert self.open.pop() == tag


@pytest.fixture
def runs(tmp_path) -> Path:
    """Two seeds of one method with metrics, an evaluation, an open loop, films; one of another with a hostile name."""
    for seed in range(2):
        logdir = made(tmp_path / f"runs/a{seed}", seed, [(s, s / 100 + seed) for s in range(10, 101, 10)])
        other = {"train/health/kl_max": 0.5, "fps/policy": 3.0}
        log(logdir / "metrics.jsonl", [(s, {"train/loss/image": 100 / s, **other}) for s in (20, 40, 60, 80, 100)])
        (logdir / "env.json").write_text(json.dumps({"started": "today", "hardware": {"cpu": "x", "gpus": []}}))
        (logdir / "eval").mkdir()
        for step, score in (("90", 0.0), ("100", 5.0 + seed)):
            (logdir / f"eval/{step}.json").write_text(json.dumps({"score": score, "acting": "mode"}))
        (logdir / "dream").mkdir()
        (logdir / "dream/100.json").write_text(json.dumps({"error": {"model": [0.1, None], "copy": [0.3, 0.4]}}))
        (logdir / "video").mkdir()
        for name in ("policy-90.mp4", "policy-100.mp4", "openloop-100.png"):
            (logdir / "video" / name).write_bytes(name.encode())
    made(tmp_path / "runs/b", 0, [(100, 0.5)], ablation="<script>alert(1)</script>")
    return tmp_path / "runs"


def test_the_page_holds_everything_and_asks_for_nothing(runs):
    page = report.page(*group([read(one) for one in find([runs])]))
    parsed = Page(page)
    assert parsed.addresses and all(one.startswith("data:") for one in parsed.addresses)
    assert not re.search(r"url\(|@import|https?://|fetch\(|import\(", page)
    assert parsed.tags.count("script") == 1 and "<script>alert" not in page
    for word in ("episode/score", "loss/image", "health/kl_max", "lr", "started", "steps ahead", "fps/policy"):
        assert word in page, word
    assert "policy-100" in page and "policy-90" not in page
    assert "5.5 &plusmn; 0.5 (mode, n=2)" in page


def test_both_colour_schemes_have_every_colour():
    light, dark = document.STYLE.split("@media")[:2]
    names = re.findall(r"(--\w+):", light.split("}")[0])
    assert len(names) == 13 and all(f"{name}:" in dark.split("}")[0] for name in names)


def test_a_long_film_is_named_and_left_out(runs, monkeypatch):
    monkeypatch.setattr(films, "MEDIA_BYTES", 14)
    page = report.page(*group([read(one) for one in find([runs])]))
    assert "left out" in page and "data:image/png" not in page and "data:video/mp4" in page


def test_the_numbers_behind_a_chart_are_those_of_the_curve(runs):
    (one,) = groups(runs / "a0", runs / "a1")
    text = svg([Line(one.label, 0, one.curve("episode/score", 100, 10))], title="score")
    data = json.loads(re.search('data-chart="([^"]*)"', text)[1].replace("&quot;", '"'))  # type: ignore[index]
    assert data["lines"][0]["mean"] == pytest.approx([s / 100 + 0.5 for s in range(10, 101, 10)])
    assert data["lines"][0]["error"] == pytest.approx([0.5] * 10) and data["lines"][0]["count"] == [2] * 10


def test_a_line_is_faint_where_a_seed_is_missing(tmp_path):
    made(tmp_path / "a", 0, [(s, 1.0) for s in range(10, 101, 10)])
    made(tmp_path / "b", 1, [(s, 1.0) for s in range(10, 51, 10)])
    (one,) = groups(tmp_path / "a", tmp_path / "b")
    text = svg([Line("x", 0, one.curve("episode/score", 100, 10))], title="score")
    assert len(re.search('class="line"[^>]*points="([^"]*)"', text)[1].split()) == 5  # type: ignore[index]
    assert len(re.search('class="faint"[^>]*points="([^"]*)"', text)[1].split()) == 10  # type: ignore[index]


@pytest.mark.parametrize(
    "values", [[0.0] * 3, [5.0] * 3, [-1e9, 0.0, 1e9], [1e-12, 2e-12, 3e-12], [np.nan, 1.0, np.nan]]
)
def test_any_curve_can_be_drawn(values):
    curve = Curve(np.array([1.0, 2.0, 3.0]), np.array(values), np.full(3, np.nan), np.ones(3, np.int64))
    assert "nan" not in svg([Line("x", 0, curve)], title="t").replace("data-chart", "")


# ---- results beside the run


def test_only_evaluations_of_the_runs_own_task_and_protocol_are_shown(tmp_path):
    logdir = made(tmp_path / "a", 0, [(100, 1.0)], protocol={"sticky": 0.25})
    own = {"task": "t:x", "protocol": {"sticky": 0.25}, "changed": {}, "acting": "sample"}
    (logdir / "eval").mkdir()
    for name, score, other in [
        ("50", 0.0, {}),
        ("100-aa", 2.0, {"changed": {"seed": 3}}),
        ("100", 1.0, {"changed": {"device": "cpu"}}),
        ("100-bb", 3.0, {"acting": "mode"}),
        ("100-cc", 4.0, {"changed": {"horizon": 3}}),
        ("200", 5.0, {"task": "t:y"}),  # from before other tasks had names of their own
        ("200-dd", 6.0, {"protocol": {"sticky": 0.0}}),
    ]:
        (logdir / f"eval/{name}.json").write_text(json.dumps({**own, "score": score, **other}))
    (one,) = groups(logdir)
    shown = []
    for name in ("100", "100-aa", "100-bb", "50"):
        row = finals(one)
        shown.append((row["eval"], row["eval_acting"]))
        (logdir / f"eval/{name}.json").unlink()
    assert shown == [(1.0, "sample"), (2.0, "sample"), (3.0, "mode"), (0.0, "sample")]
    assert finals(one)["eval_seeds"] == 0


def test_runs_are_found_at_every_depth_and_not_in_each_other(tmp_path):
    logdirs = [made(tmp_path / name, 0, [(1, 1.0)]) for name in ("one", "mix/two", "plans/memory/three")]
    made(tmp_path / "one/rank-1", 1, [(1, 1.0)])
    made(tmp_path / "plans/memory/three/rank-1", 1, [(1, 1.0)])
    assert sorted(find([tmp_path])) == sorted(logdirs)
    assert find([tmp_path / "one"]) == [tmp_path / "one"]
    assert find([tmp_path / "one/rank-1"]) == [tmp_path / "one/rank-1"]


def test_a_run_says_itself_what_makes_no_method(tmp_path):
    """Of an app of later, with fields that nobody here knows: the run names those that may change."""
    own = ["steps", "patience"]
    made(tmp_path / "a", 0, [(100, 1.0)], patience=3, keep=2, resumable=own)
    made(tmp_path / "b", 1, [(100, 1.0)], patience=9, keep=2, resumable=own)
    made(
        tmp_path / "c", 2, [(100, 1.0)], patience=9, keep=7, resumable=own
    )  # which is resumable only where none is named
    assert sorted(one.seeds for one in groups(*find([tmp_path]))) == [[0, 1], [2]]


def test_an_evaluation_is_of_the_run_where_it_differs_by_what_the_run_calls_incidental(tmp_path):
    logdir = made(tmp_path / "a", 0, [(100, 1.0)])
    with (logdir / "config.toml").open("a") as file:
        file.write('\nincidental = ["patience"]\n')
    (logdir / "eval").mkdir()
    for step, name in ((100, "patience"), (200, "seed")):
        (logdir / f"eval/{step}.json").write_text(json.dumps({"score": float(step), "changed": {name: 1}}))
    (one,) = groups(logdir)
    assert finals(one)["eval"] == 100.0


@pytest.mark.parametrize("left", [None, b"", b"\0\0\n"], ids=["missing", "empty", "zeros"])
def test_where_config_toml_is_lost_the_newest_checkpoint_that_kept_it_says(tmp_path, left):
    logdir = made(tmp_path / "runs/a", 3, [(100, 1.0)])
    config = {"task": "t:kept", "seed": 5, "run": {"app": "one"}}
    for step, text in [("9", json.dumps({"meta": {"config": {"task": "t:old"}}})), ("10", json.dumps({"meta": {"config": config}})),
                       ("11", '{"meta": '), (".draft", json.dumps({"meta": {"config": {"task": "t:draft"}}}))]:  # fmt: skip
        (logdir / f"checkpoint/{step}").mkdir(parents=True)
        (logdir / f"checkpoint/{step}/manifest.json").write_text(text)
    (logdir / "config.toml").unlink() if left is None else (logdir / "config.toml").write_bytes(left)
    (run,) = [read(one) for one in find([tmp_path])]
    assert (run.task, run.seed, run.app) == ("t:kept", 5, "one")


def test_a_config_that_is_no_toml_is_one_sentence(tmp_path):
    logdir = made(tmp_path / "a", 0, [])
    (logdir / "config.toml").write_text("task =")
    with pytest.raises(SuiteError, match=r"config.toml is not TOML"):
        read(logdir)
    (logdir / "config.toml").write_text("seed = 3", encoding="utf-16")
    with pytest.raises(SuiteError, match=r"config.toml is not UTF-8"):
        read(logdir)


@pytest.mark.parametrize("name", ["config.toml", "scores.jsonl"])
def test_a_file_that_an_editor_of_windows_saved_says_the_same(tmp_path, name):
    logdir = made(tmp_path / "a", 3, [(50, 1.0), (100, 2.0)])
    plain = read(logdir)
    text = (logdir / name).read_bytes().replace(b"\n", b"\r\n")
    (logdir / name).write_bytes(b"\xef\xbb\xbf" + text)
    found = read(logdir)
    assert found.seed == plain.seed == 3
    assert repr(found.series) == repr(plain.series) and found.series
    (logdir / name).write_text("x\n", encoding="utf-16")
    with pytest.raises(SuiteError, match=f"{name} is not UTF-8"):
        read(logdir)


def test_the_picture_is_a_png_of_every_task(tmp_path):
    made(tmp_path / "a", 0, [(50, 1.0), (100, 2.0)])
    made(tmp_path / "b", 1, [(50, 1.0)], task="t:y")
    path = picture(groups(tmp_path / "a", tmp_path / "b"), tmp_path / "all.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_link_never_takes_the_place_of_a_file(tmp_path):
    made(tmp_path / "a", 0, [(50, 1.0)])
    found = groups(tmp_path / "a")
    (tmp_path / "links/000-t_x-one-0").mkdir(parents=True)
    with pytest.raises(SuiteError, match="choose another folder for --export"):
        export([read(tmp_path / "a")], found, tmp_path / "links")


def test_it_needs_nothing_of_ours_and_no_torch():
    code = "import sys, wm_suite; print({m.partition('.')[0] for m in sys.modules} & {'torch', 'wm_core', 'wm_run', 'matplotlib'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

"""plot: what is averaged with what, what a curve says, and a page that needs nothing else."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wm_core.errors import UserError
from wm_run import gather, report
from wm_run.chart import Line, svg
from wm_run.cli import main
from wm_run.folder import Run
from wm_run.gather import binned, find, group, over_seeds, read


def made(
    logdir: Path, seed: int, scores: list[tuple[int, float]], *, app: str = "one", task: str = "t:x", **changes: Any
) -> Path:
    """A run folder with these scores; changes are fields of the config, or `protocol`."""
    run = Run(logdir, tensorboard=False)
    origin = {"app": app, "version": "1", "preset": "", "size": "", "ablation": changes.pop("ablation", "")}
    run.protocol({"task": task, "repeat": 1, **changes.pop("protocol", {})})
    run.config({"task": task, "seed": seed, "steps": 100, "lr": 0.1, **changes, "run": origin})
    for step, score in scores:
        run.score(step, score, 7)
    run.close()
    return logdir


def groups(*logdirs: Path, mixed: bool = False) -> list[gather.Group]:
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
    row = report.finals(one)
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
    with pytest.raises(UserError, match=r"sticky: 0.25 or 0.0.*--mixed"):
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
    with pytest.raises(UserError, match=r"line 1 of .*scores.jsonl is not JSON"):
        read(tmp_path / "a")


def test_folders_of_runs_are_searched(tmp_path):
    for name in ("x/a", "x/b"):
        made(tmp_path / name, 0, [(1, 1.0)])
    assert [path.name for path in find([tmp_path, tmp_path / "x/a"])] == ["a", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no run in"):
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
        run = Run(logdir, tensorboard=False)
        for step in (20, 40, 60, 80, 100):
            run.metrics(step, {"train/loss/image": 100 / step, "train/health/kl_max": 0.5, "fps/policy": 3.0})
        run.environment()
        run.close()
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
    light, dark = report.STYLE.split("@media")[:2]
    names = re.findall(r"(--\w+):", light.split("}")[0])
    assert len(names) == 13 and all(f"{name}:" in dark.split("}")[0] for name in names)


def test_a_long_film_is_named_and_left_out(runs, monkeypatch):
    monkeypatch.setattr(report, "MEDIA_BYTES", 14)
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
    curve = gather.Curve(np.array([1.0, 2.0, 3.0]), np.array(values), np.full(3, np.nan), np.ones(3, np.int64))
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
        row = report.finals(one)
        shown.append((row["eval"], row["eval_acting"]))
        (logdir / f"eval/{name}.json").unlink()
    assert shown == [(1.0, "sample"), (2.0, "sample"), (3.0, "mode"), (0.0, "sample")]
    assert report.finals(one)["eval_seeds"] == 0


def test_damaged_results_are_left_out_with_a_sentence(fakes, runs, capsys):
    (runs / "a0/eval/200.json").write_bytes(b"\xff\x00")
    (runs / "a1/eval/200.json").write_text("[]")
    (runs / "a0/dream/200.json").write_text('{"error": {"model": 3}}')
    (runs / "a1/dream/200.json").write_text('{"error": ')
    main(fakes.app, ["plot", str(runs), "--out", "all"])
    err = capsys.readouterr().err
    assert err.count("is damaged and left out: remove it, or run") == 4 and "a0/dream/200.json" in err
    page = Path("all.html").read_text()
    assert "5.5 &plusmn; 0.5 (mode, n=2)" in page and "steps ahead" in page and "a1/eval/200.json is damaged" in page


def test_runs_are_found_at_every_depth_and_not_in_each_other(tmp_path):
    logdirs = [made(tmp_path / name, 0, [(1, 1.0)]) for name in ("one", "mix/two", "plans/memory/three")]
    made(tmp_path / "one/rank-1", 1, [(1, 1.0)])
    made(tmp_path / "plans/memory/three/rank-1", 1, [(1, 1.0)])
    assert sorted(find([tmp_path])) == sorted(logdirs)
    assert find([tmp_path / "one"]) == [tmp_path / "one"]
    assert find([tmp_path / "one/rank-1"]) == [tmp_path / "one/rank-1"]


# ---- the command


def test_plot_writes_both_files_and_prints_the_table(fakes, runs, capsys):
    main(fakes.app, ["plot", str(runs), "--out", "out/all"])
    out = capsys.readouterr().out
    assert Path("out/all.html").stat().st_size > 5000
    assert Path("out/all.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"t:x +one +2 +100 +1.5 +0.5\n", out) and "out/all.html\nout/all.png" in out


def test_one_run_keeps_its_report_in_its_folder(fakes, runs):
    main(fakes.app, ["plot", str(runs / "a0")])
    assert (runs / "a0/report.html").exists() and (runs / "a0/report.png").exists()


def test_without_matplotlib_the_page_is_there_and_one_sentence_says_what_is_missing(fakes, runs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    main(fakes.app, ["plot", str(runs), "--out", "all"])
    assert "install wm-run[plot]" in capsys.readouterr().err
    assert Path("all.html").exists() and not Path("all.png").exists()


def test_a_mistake_is_one_sentence(fakes, runs, tmp_path, capsys):
    made(tmp_path / "other", 5, [(100, 1.0)], protocol={"sticky": 1})
    made(tmp_path / "none", 5, [])
    for line, words in [
        ("plot", "needs the LOGDIRS"),
        ("plot nowhere", "no run in nowhere"),
        (f"plot {runs} {tmp_path / 'other'}", "different protocols (sticky: none or 1)"),
        (f"plot {runs} --seed 3", "no option '--seed'"),
        (f"plot {tmp_path / 'none'}", "has logged anything yet"),
    ]:
        with pytest.raises(SystemExit) as stop:
            main(fakes.app, line.split())
        out, err = capsys.readouterr()
        assert stop.value.code == 2 and words in err and "Traceback" not in err and out == "", line


def test_exported_names_come_apart_as_danijars_plot_takes_them(fakes, runs, capsys):
    main(fakes.app, ["plot", str(runs), "--out", "all", "--export", "links"])
    found = sorted(Path("links").iterdir())
    parts = [path.name.split("-") for path in found]
    assert [(task, method, seed) for _, task, method, seed in parts] == [
        ("t_x", "one", "0"),
        ("t_x", "one", "1"),
        ("t_x", "one_script_alert_1_script", "0"),
    ]
    rows = [json.loads(line) for line in (found[0] / "scores.jsonl").read_text().splitlines()]
    assert all({"step", "episode/score"} <= row.keys() for row in rows)
    main(fakes.app, ["plot", str(runs), "--out", "all", "--export", "links"])  # a second time replaces its own links


def test_plotting_needs_no_torch(fakes, runs):
    import subprocess

    code = "import sys; from wm_run import plot; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

"""plot: wm-suite's report of run folders, as a command."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from wm_run.app import Origin
from wm_run.cli import main
from wm_run.config import RunConfig, resumable
from wm_run.configs import write_run
from wm_run.folder import Run


def made(
    app: Any, logdir: Path, seed: int, scores: list[tuple[int, float]], ablation: str = "", **protocol: Any
) -> Path:
    """A run folder with these scores, written as `train` writes it."""
    run = Run(logdir, tensorboard=False)
    run.protocol({"task": "t:x", "repeat": 1, **protocol})
    run.config(write_run(app, RunConfig(task="t:x", seed=seed), Origin(ablation=ablation)))
    for step, score in scores:
        run.score(step, score, 7)
    run.close()
    return logdir


@pytest.fixture
def runs(fakes, tmp_path) -> Path:
    """Two seeds of one method with an evaluation and an open loop; one of another with a hostile name."""
    for seed in range(2):
        logdir = made(fakes.app, tmp_path / f"runs/a{seed}", seed, [(s, s / 100 + seed) for s in range(10, 101, 10)])
        (logdir / "eval").mkdir()
        for step, score in (("90", 0.0), ("100", 5.0 + seed)):
            (logdir / f"eval/{step}.json").write_text(json.dumps({"score": score, "acting": "mode"}))
        (logdir / "dream").mkdir()
        (logdir / "dream/100.json").write_text(json.dumps({"error": {"model": [0.1, None], "copy": [0.3, 0.4]}}))
    made(fakes.app, tmp_path / "runs/b", 0, [(100, 0.5)], ablation="<script>alert(1)</script>")
    return tmp_path / "runs"


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


def test_plot_writes_both_files_and_prints_the_table(fakes, runs, capsys):
    main(fakes.app, ["plot", str(runs), "--out", "out/all"])
    out = capsys.readouterr().out
    assert Path("out/all.html").stat().st_size > 5000
    assert Path("out/all.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"t:x +fakeapp +2 +100 +1.5 +0.5\n", out) and "out/all.html\nout/all.png" in out


def test_one_run_keeps_its_report_in_its_folder(fakes, runs):
    main(fakes.app, ["plot", str(runs / "a0")])
    assert (runs / "a0/report.html").exists() and (runs / "a0/report.png").exists()


@pytest.mark.parametrize("missing", ["wm_suite", "matplotlib"])
def test_without_the_extra_one_sentence_says_what_to_install(fakes, runs, capsys, monkeypatch, missing):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("wm_suite", "matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as stop:
        main(fakes.app, ["plot", str(runs), "--out", "all"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"fakeapp: the package {missing} is missing: install wm-run[plot]\n"


def test_a_run_names_the_fields_that_make_no_method(fakes, runs):
    config = tomllib.loads((runs / "a0/config.toml").read_text())
    assert set(config["run"]["resumable"]) == set(resumable(RunConfig)) >= {"steps", "keep"}
    assert {"seed", "device", "eval_envs"} <= set(config["run"]["incidental"])
    assert all(name in config for kind in ("resumable", "incidental") for name in config["run"][kind])


def test_a_mistake_is_one_sentence(fakes, runs, tmp_path, capsys):
    made(fakes.app, tmp_path / "other", 5, [(100, 1.0)], sticky=1)
    made(fakes.app, tmp_path / "none", 5, [])
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
        ("t_x", "fakeapp", "0"),
        ("t_x", "fakeapp", "1"),
        ("t_x", "fakeapp_script_alert_1_script", "0"),
    ]
    rows = [json.loads(line) for line in (found[0] / "scores.jsonl").read_text().splitlines()]
    assert all({"step", "episode/score"} <= row.keys() for row in rows)
    main(fakes.app, ["plot", str(runs), "--out", "all", "--export", "links"])  # a second time replaces its own links

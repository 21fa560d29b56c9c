"""`wm-suite report` and `wm-suite verify`: of a suite, of a file of rows, of folders; what failed, films, exit status."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from wm_suite import SuiteError
from wm_suite.command import main
from wm_suite.home import Home

sys.path.append(str(Path(__file__).parent))
from suite_rows import row, written

SUITE = """
title = "Mine"
outcome = "won"
[[run]]
arm = "a"
app = "a"
preset = "tiny"
tasks = ["t"]
seeds = [0, 1, 2, 3]
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A suite with three rows of four; the fourth run has failed."""
    (tmp_path / "mine.toml").write_text(SUITE)
    folder = tmp_path / "runs/suites/mine"
    rows = [row("t", "a", seed, [float(seed)], won=[1], folder=f"runs/suites/mine/t-a-{seed}") for seed in (0, 1, 2)]
    written(folder / "rows.jsonl", rows)
    failed = {"settings": rows[0]["settings"], "wall_s": 9.0, "done": "", "attempts": 3, "error": "OSError: no room"}
    (folder / "t-a-3").mkdir()
    (folder / "t-a-3/config.toml").write_text('task = "t"\n')
    (folder / "t-a-3.json").write_text(json.dumps(failed))
    return Home(cwd=tmp_path)


def film(logdir: Path, name: str, data: bytes) -> None:
    (logdir / "video").mkdir(parents=True, exist_ok=True)
    (logdir / "video" / name).write_bytes(data)


def test_a_suite_becomes_a_page_that_verifies(home, capsys):
    assert main(["report", str(home.cwd / "mine.toml")], home) == 0
    page = home.cwd / "runs/suites/mine/report.html"
    assert capsys.readouterr().out.split() == [str(page), str(page.with_suffix(".json"))]
    text = page.read_text()
    assert "3 of 4 runs" in text and "seed 3 failed: OSError: no room" in text and "100.0% [" in text
    assert json.loads(page.with_suffix(".json").read_text())["sources"][0]["path"] == "rows.jsonl"
    assert main(["verify", str(page)], home) == 0
    assert "numbers are what its 3 rows give" in capsys.readouterr().out


def test_a_page_that_differs_is_told_in_sentences_with_exit_status_1(home, capsys):
    main(["report", str(home.cwd / "mine.toml"), "--out", str(home.cwd / "out/page.html")], home)
    page = home.cwd / "out/page.html"
    assert main(["verify", str(page)], home) == 0
    page.write_text(page.read_text().replace(">1.00 ± 0.58<", ">2.00 ± 0.58<"))
    capsys.readouterr()
    assert main(["verify", str(page)], home) == 1
    assert (
        f"{page}: the page says 2.00 ± 0.58 where its rows give 1.00 ± 0.58: score: a on t" in capsys.readouterr().out
    )
    assert main(["verify", str(home.cwd / "mine.toml")], home) == 2
    assert "holds no passport" in capsys.readouterr().err


def test_a_suite_of_which_nothing_was_run_is_a_page_that_says_so(tmp_path, capsys):
    (tmp_path / "new.toml").write_text(SUITE)
    home = Home(cwd=tmp_path)
    assert main(["report", str(tmp_path / "new.toml")], home) == 0
    page = tmp_path / "runs/suites/new/report.html"
    assert "0 of 4 runs" in page.read_text() and '<small class="gap">not run</small>' in page.read_text()
    assert main(["verify", str(page)], home) == 0


def test_films_are_of_the_best_and_the_worst_seed_and_no_link_is_followed(home):
    folder = home.cwd / "runs/suites/mine"
    for seed in (0, 1, 2):
        film(folder / f"t-a-{seed}", "policy-9.png", f"film {seed}".encode())
    (folder / "t-a-0/video/secret-9.png").symlink_to(home.cwd / "mine.toml")
    main(["report", str(home.cwd / "mine.toml")], home)
    text = (folder / "report.html").read_text()
    assert "a on t, best seed 2 (2.00)" in text and "a on t, worst seed 0 (0.00)" in text
    assert 'alt="a on t, best seed 2: policy-9"' in text and text.count("data:image/png") == 2 and "secret" not in text
    assert main(["verify", str(folder / "report.html")], home) == 0
    (folder / "t-a-2").rename(home.cwd / "elsewhere")
    (folder / "t-a-2").symlink_to(home.cwd / "elsewhere")
    main(["report", str(home.cwd / "mine.toml")], home)
    assert (folder / "report.html").read_text().count("data:image/png") == 1


def test_rows_alone_become_a_page_and_lead_to_no_folder_outside(home, tmp_path):
    outside = tmp_path.with_name(f"{tmp_path.name}-outside")
    film(outside, "policy-9.png", b"theirs")
    film(tmp_path / "runs/here", "policy-9.png", b"ours")
    folders = [str(outside), f"../{outside.name}", "runs/here"]
    rows = written(
        tmp_path / "some.jsonl", [row("t", f"arm{i}", 0, [1.0], folder=one) for i, one in enumerate(folders)]
    )
    assert main(["report", str(rows), "--score", "trained"], home) == 0
    text = (tmp_path / "some.html").read_text()
    assert text.count("data:image/png") == 1 and "arm2 on t, only seed 0" in text
    assert main(["verify", str(tmp_path / "some.html")], home) == 0


def test_folders_become_a_page_that_verifies(tmp_path, monkeypatch, capsys):
    for seed in (0, 1):
        folder = tmp_path / f"logs/20260101-atari_pong-dreamerv3-{seed}"
        folder.mkdir(parents=True)
        lines = [{"step": step, "episode/score": seed + step / 1000} for step in range(100, 1001, 100)]
        (folder / "scores.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    monkeypatch.chdir(tmp_path)
    assert main(["report", "logs", "--normalise", "atari_human"]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "1.50 ± 0.50" in text and "interquartile mean" in text and "Learning curves" in text
    assert main(["verify", "report.html"]) == 0
    (tmp_path / "logs/20260101-atari_pong-dreamerv3-1/scores.jsonl").write_text('{"step": 100, "episode/score": 9}\n')
    assert main(["verify", "report.html"]) == 1
    assert "the row of dreamerv3 on atari_pong, seed 1 has changed" in capsys.readouterr().out


def test_rows_of_an_older_making_are_read_as_they_would_be_written_today(home, tmp_path):
    old = written(tmp_path / "runs/suites/mine/rows.jsonl", [{"variant": "a", "seed": 0, "hits": [1.0, 0.0]}])

    def modern(suite, rows):
        assert suite == "mine"
        return [row("t", one["variant"], one["seed"], one["hits"]) for one in rows]

    newer = Home(cwd=tmp_path, modern=modern)
    assert main(["report", str(tmp_path / "mine.toml")], newer) == 0
    page = old.with_name("report.html")
    assert ">0.50</button>" in page.read_text() and main(["verify", str(page)], newer) == 0
    old.write_text(old.read_text().replace("[1.0, 0.0]", "[1.0, 1.0]"))
    assert main(["verify", str(page)], newer) == 1


@pytest.mark.parametrize(
    "words, says",
    [
        (["mine.toml", "mine.toml"], "mine.toml is no folder: name folders of runs, or one suite"),
        (["mine.toml", "--out", "page.htm"], "--out page.htm ends in .htm"),
        (["none.jsonl"], "none.jsonl cannot be read"),
        (["empty"], "there is no run in empty"),
    ],
)
def test_a_mistake_is_one_sentence(home, monkeypatch, capsys, words, says):
    monkeypatch.chdir(home.cwd)
    (home.cwd / "empty").mkdir()
    assert main(["report", *words], home) == 2
    assert says in capsys.readouterr().err


def test_a_half_written_last_line_is_no_row_and_a_broken_one_is_told(home):
    rows = home.cwd / "runs/suites/mine/rows.jsonl"
    rows.write_bytes(rows.read_bytes() + b'{"task": "t", "ar')
    assert main(["report", str(home.cwd / "mine.toml")], home) == 0
    rows.write_bytes(b"nonsense\n" + rows.read_bytes())
    from wm_suite.sources import rows_file

    with pytest.raises(SuiteError, match=r"line 1 of .*rows.jsonl is no row"):
        rows_file(rows)

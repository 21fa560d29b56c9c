"""Odd values and hostile names in a run folder: the odd row or run is told and left out, and the rest is shown."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest
from wm_suite import SuiteError, export, group, legible, page, picture, read, table
from wm_suite.results import damaged, newest_eval

DEEP = "[" * 5000 + "]" * 5000
ENDS = ("1e308", "-1e308", "NaN", "Infinity", "-Infinity")


def made(logdir: Path, seed: str = "0", task: str = "t:x", more: str = "", run: str = 'app = "one"') -> Path:
    logdir.mkdir(parents=True)
    (logdir / "config.toml").write_text(f"task = {json.dumps(task)}\nseed = {seed}\n{more}\n[run]\n{run}\n")
    (logdir / "protocol.json").write_text('{"repeat": 1}')
    rows = [{"step": step, "episode/score": step / 10, "episode/length": 7} for step in range(10, 101, 10)]
    (logdir / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return logdir


def shown(*logdirs: Path) -> tuple[str, list[str]]:
    """The page, and what was said; table and picture are made, too."""
    runs, notes = legible(logdirs)
    groups, more = group(runs)
    notes += more + damaged(groups) + [note for run in runs for note in run.notes]
    table(groups)
    picture(groups, logdirs[0].parent / "all.png")
    text = page(groups, notes)
    text.encode("utf-8")
    return text, notes


@pytest.mark.parametrize(
    "row",
    [
        '{"step": null, "episode/score": 1}',
        '{"step": "x", "episode/score": 1}',
        '{"step": NaN, "episode/score": 1}',
        '{"step": -5, "episode/score": 1}',
        '{"step": 1e999, "episode/score": 1}',
        f'{{"step": {"9" * 400}, "episode/score": 1}}',
        f'{{"step": 50, "episode/score": {"9" * 400}}}',
        f'{{"step": 50, "episode/score": {"9" * 5000}}}',
        f'{{"step": 50, "episode/score": 1, "more": {DEEP}}}',
        DEEP,
        "[1, 2]",
        '"text"',
    ],
    ids=range(12),
)
@pytest.mark.parametrize("log", ["scores.jsonl", "metrics.jsonl"])
def test_an_odd_row_is_told_and_left_out(tmp_path: Path, row: str, log: str) -> None:
    whole, odd = made(tmp_path / "a"), made(tmp_path / "b")
    with (odd / log).open("a") as file:
        file.write(f"{row}\n{row}\n")
    (note,) = read(odd).notes
    assert str(odd / log) in note and "and 1 more are odd and left out" in note and len(note) < 300
    assert read(odd).final() == read(whole).final() and read(whole).notes == ()
    assert shown(odd)[1] == [note]


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@pytest.mark.parametrize("value", ENDS)
def test_numbers_at_the_ends_of_what_a_float_holds_are_drawn(tmp_path: Path, value: str) -> None:
    logdir = made(tmp_path / "a")
    with (logdir / "scores.jsonl").open("a") as file:
        file.write(f'{{"step": 101, "episode/score": {value}}}\n{{"step": 102, "episode/score": 1}}\n')
    shown(logdir)


def test_a_run_that_never_left_step_0_is_drawn(tmp_path: Path) -> None:
    logdir = made(tmp_path / "a")
    (logdir / "scores.jsonl").write_text('{"step": 0, "episode/score": 1}\n')
    assert "<svg" in shown(logdir)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": '"x"'},
        {"seed": "nan"},
        {"seed": "[1]"},
        {"seed": "2.5"},
        {"seed": "0\nodd = " + "9" * 5000},
        {"seed": "0\nodd = " + "[" * 100 + "]" * 100},
        {"seed": "0\nodd = " + DEEP},
        {"run": "resumable = 5"},
        {"run": "resumable = [[1]]"},
        {"run": "incidental = [1]"},
    ],
    ids=range(10),
)
def test_a_run_with_an_odd_config_is_told_and_left_out(tmp_path: Path, changes: dict[str, str]) -> None:
    whole, odd = made(tmp_path / "a"), made(tmp_path / "b", **changes)
    with pytest.raises(SuiteError, match=r"config\.toml"):
        shown(odd)  # there is no other
    text, (note,) = shown(odd, whole)
    assert str(odd / "config.toml") in note and "left out" in note and "<svg" in text and len(note) < 400


def test_a_config_without_a_table_of_the_run_is_told(tmp_path: Path) -> None:
    odd = made(tmp_path / "b")
    (odd / "config.toml").write_text('seed = 0\nrun = "x"\n')
    with pytest.raises(SuiteError, match=r"\[run\]"):
        read(odd)


@pytest.mark.parametrize(
    "text",
    [
        '{"hardware": "x", "packages": [1]}',
        '{"hardware": ["x"], "packages": null}',
        '{"hardware": {"cpu": [1], "cores": {}, "gpus": null}}',
        '{"hardware": {"gpus": [1, null, {"a": 1}]}, "started": [[[1]]], "commit": NaN}',
        '{"started": "\\ud800"}',
    ],
)
def test_odd_hardware_is_shown_as_it_is(tmp_path: Path, text: str) -> None:
    logdir = made(tmp_path / "a", more=f"when = 1979-05-27\nlarge = {'9' * 400}\ninfinite = inf")
    (logdir / "env.json").write_text(text)
    assert shown(logdir)[1] == []


@pytest.mark.parametrize("name", ["env.json", "protocol.json"])
@pytest.mark.parametrize("text", [f'{{"a": {DEEP}}}', f'{{"a": {"9" * 5000}}}', "{"], ids=["deep", "long", "broken"])
def test_a_file_that_no_run_writes_is_one_sentence(tmp_path: Path, name: str, text: str) -> None:
    logdir = made(tmp_path / "a")
    (logdir / name).write_text(text)
    with pytest.raises(SuiteError, match=name):
        read(logdir)


@pytest.mark.parametrize(
    "score", [DEEP, "9" * 400, "9" * 5000, '"x"', "null"], ids=["deep", "400", "5000", "x", "null"]
)
def test_an_odd_result_is_damaged(tmp_path: Path, score: str) -> None:
    logdir = made(tmp_path / "a")
    for kind, text in (("eval", f'{{"score": {score}}}'), ("dream", f'{{"error": {{"model": [0.1, {score}]}}}}')):
        (logdir / kind).mkdir()
        (logdir / kind / "100.json").write_text(text)
    os.mkfifo(logdir / "eval/90.json")  # reading it would never end
    text, notes = shown(logdir)
    assert newest_eval(read(logdir)) is None
    assert len([note for note in notes if "is damaged and left out" in note]) == 3 - (score == "null")


NAMES = [r"$\badcmd{", r"\frac{$x", "$", "$$", "<b>&\"'", "a\nb", "ä\u202e"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_name_can_be_drawn(tmp_path: Path, name: str) -> None:
    one = made(tmp_path / "a", task=name, run=f"app = {json.dumps(name)}\nablation = {json.dumps(name)}")
    shown(one)
    export([read(one)], group([read(one)])[0], tmp_path / "links")


def test_no_link_among_the_films_is_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"a secret of somebody's")
    logdir = made(tmp_path / "a")
    (logdir / "video").mkdir()
    (logdir / "video/policy-100.png").symlink_to(secret)
    os.mkfifo(logdir / "video/policy-100.mp4")
    assert "data:image" not in shown(logdir)[0]
    (logdir / "video/policy-90.png").write_bytes(b"its own")
    assert shown(logdir)[0].count("data:image") == 1
    other = made(tmp_path / "b")
    (other / "video").symlink_to(logdir / "video", target_is_directory=True)
    assert "data:image" not in shown(other)[0]


# ---- logs that are not what the run wrote


def saved(logdir: Path, marks: object, step: int = 100) -> None:
    """A checkpoint that says this of the logs."""
    folder = logdir / "checkpoint" / str(step)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"meta": {"logs": marks}}))


def mark(logdir: Path, altered: bool = False) -> dict[str, object]:
    text = (logdir / "scores.jsonl").read_bytes()
    return {"scores.jsonl": {"bytes": len(text), "crc32": zlib.crc32(text), "altered": altered}}


@pytest.mark.parametrize("change", [(b"7", b"8"), (b'{"step": 10,', b'{"step": 11,'), (b": 7}", b": 77}"), (b"1", b"")])
def test_a_changed_row_is_told(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    logdir = made(tmp_path / "a")
    saved(logdir, mark(logdir))
    path = logdir / "scores.jsonl"
    with path.open("ab") as file:
        file.write(b'{"step": 110, "episode/score": 5}\n')  # it trains on
    assert read(logdir).notes == ()
    path.write_bytes(path.read_bytes().replace(*change, 1))
    notes = [note for note in read(logdir).notes if "odd and left out" not in note]
    assert len(notes) == 1 and f"{path} is not what the run wrote there" in notes[0]
    assert notes[0] in shown(logdir)[0].replace("&#x27;", "'")
    path.unlink()
    assert "is not what the run wrote there" in read(logdir).notes[0]


def test_what_another_program_wrote_meanwhile_is_told(tmp_path: Path) -> None:
    logdir = made(tmp_path / "a")
    saved(logdir, mark(logdir, altered=True))
    assert "holds what another program wrote there" in read(logdir).notes[0]


@pytest.mark.parametrize(
    "marks",
    [5, [1], {"scores.jsonl": 5}, {"scores.jsonl": {"bytes": "x", "crc32": 3}}, {"..": {"bytes": 0, "crc32": 0}}],
)
def test_marks_that_no_run_writes_say_nothing(tmp_path: Path, marks: object) -> None:
    logdir = made(tmp_path / "a")
    saved(logdir, marks)
    assert read(logdir).notes == ()


def test_marks_without_end_are_one_note(tmp_path: Path) -> None:
    logdir = made(tmp_path / "a")
    saved(logdir, {"scores.jsonl": {"bytes": 10**400, "crc32": 0}, "../secret": {"bytes": 0, "crc32": 0}})
    assert len(read(logdir).notes) == 1

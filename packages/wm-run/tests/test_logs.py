"""Rows of the logs that somebody changed, added or took away: told in one sentence, and nothing is lost of them."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wm_run import checkpoint
from wm_run.cli import main
from wm_run.logs import Log, difference

pytestmark = pytest.mark.usefixtures("quiet")


def train(fakes: Any, steps: int, *more: str) -> None:
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "D", "--steps", str(steps), *more])


def rows(name: str) -> list[bytes]:
    return Path("D", name).read_bytes().splitlines(keepends=True)


def edited(name: str, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """The log after a change, which it holds."""
    text = b"".join(change(rows(name)))
    Path("D", name).write_bytes(text)
    return text


def add(name: str, text: bytes) -> None:
    """What another program writes at the end."""
    with Path("D", name).open("ab") as file:
        file.write(text)


def digit(row: bytes) -> bytes:
    """The row with its last digit another one."""
    at = max(i for i, letter in enumerate(row) if letter in b"0123456789")
    return row[:at] + bytes([48 + (row[at] - 47) % 10]) + row[at + 1 :]


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a digit of the first row": lambda all: [digit(all[0]), *all[1:]],
    "a digit of the last row": lambda all: [*all[:-1], digit(all[-1])],
    "a step": lambda all: [all[0].replace(b'"step": ', b'"step": 1', 1), *all[1:]],
    "a row longer": lambda all: [all[0].replace(b"}", b', "episode/score": 9e9}'), *all[1:]],
    "a row shorter": lambda all: [b'{"step": 4}\n', *all[1:]],
    "a row less": lambda all: all[1:],
    "the last row less": lambda all: all[:-1],
    "a row more": lambda all: [*all[:1], b'{"step": 8, "episode/score": 100.0}\n', *all[1:]],
    "two rows changed places": lambda all: [all[1], all[0], *all[2:]],
    "no row": lambda all: [],
    "what is no row": lambda all: [all[0], b"hello\n", *all[1:]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_row_is_noticed_and_no_row_before_the_checkpoint_is_lost(tmp_path: Path, change: str) -> None:
    log = Log(tmp_path / "scores.jsonl")
    for step in range(4, 40, 4):
        log.write(b'{"step": %d, "episode/score": %d}\n' % (step, step % 11))
    log.sync()
    mark = log.mark()
    log.write(b'{"step": 44, "episode/score": 1}\n')  # behind the checkpoint of step 40
    before = log.path.read_bytes().splitlines(keepends=True)
    text = b"".join(CHANGES[change](before[:-1]))
    log.path.write_bytes(text + before[-1])
    assert difference(text + before[-1], mark)
    log.cut(mark["bytes"], 40, mark)
    assert (tmp_path / "scores.jsonl.before-1").read_bytes() == text + before[-1]
    if change != "a step":  # which no longer says where it belongs
        assert log.path.read_bytes() == text
    assert len(log.notices) == 1 and "all of it is in scores.jsonl.before-1; put it back from a copy" in log.notices[0]
    assert log.altered


@pytest.mark.parametrize("name", ["metrics.jsonl", "scores.jsonl"])
def test_eval_and_train_tell_a_changed_row(fakes: Any, capsys: Any, name: str) -> None:
    train(fakes, 120)
    text = edited(name, CHANGES["a digit of the first row"])
    capsys.readouterr()
    main(fakes.app, ["eval", "D", "--episodes", "1"])
    assert f"D/{name} is not what was saved (its checksum differs)" in capsys.readouterr().err
    train(fakes, 160)
    said = capsys.readouterr().err
    assert f"D/{name} is not what was saved" in said and f"all of it is in {name}.before-1" in said
    assert Path("D", f"{name}.before-1").read_bytes() == text and Path("D", name).read_bytes().startswith(text)
    train(fakes, 200)
    assert "before-" not in capsys.readouterr().err and altered(name)  # told once, and kept


def altered(name: str) -> bool:
    path = checkpoint.latest("D")
    assert path is not None
    return bool(json.loads((path / "manifest.json").read_text())["meta"]["logs"][name]["altered"])


def test_an_untouched_run_is_told_nothing(fakes: Any, capsys: Any) -> None:
    train(fakes, 80)
    train(fakes, 120)
    add("metrics.jsonl", b'{"step": 124, "x": 1}\n{"ste')  # as of a killed process
    main(fakes.app, ["eval", "D", "--episodes", "1"])
    train(fakes, 160)
    said = capsys.readouterr().err
    assert "before-" not in said and "put it back" not in said and not altered("metrics.jsonl")
    saved = checkpoint.load(checkpoint.latest("D") or "")
    for name, mark in saved.meta["logs"].items():
        text = Path("D", name).read_bytes()[: saved.state["run"][name]]
        assert mark == {"bytes": len(text), "crc32": zlib.crc32(text), "altered": False}


def test_rows_that_another_program_added_behind_the_checkpoint_are_kept(fakes: Any, capsys: Any) -> None:
    train(fakes, 120)
    add("scores.jsonl", b'{"step": 3, "note": "mine"}\n')
    train(fakes, 160)
    said = capsys.readouterr().err
    assert "scores.jsonl holds rows of another program behind step" in said
    assert Path("D/scores.jsonl.before-1").read_bytes().endswith(b'"mine"}\n')
    assert b"mine" not in Path("D/scores.jsonl").read_bytes()


def test_a_run_of_before_there_were_sums_goes_on(fakes: Any, capsys: Any) -> None:
    train(fakes, 120)
    saved = checkpoint.load(checkpoint.latest("D") or "")
    meta = {name: value for name, value in saved.meta.items() if name != "logs"}
    checkpoint.save("D", saved.step, weights=saved.weights, state=saved.state, meta=meta)
    edited("metrics.jsonl", CHANGES["a digit of the first row"])
    train(fakes, 160)
    assert "put it back" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "marks", [5, {"metrics.jsonl": 3}, {"metrics.jsonl": {"bytes": "x", "crc32": -1}}, {"../x": {}}]
)
def test_marks_that_no_run_writes_say_nothing(fakes: Any, marks: Any) -> None:
    train(fakes, 120)
    saved = checkpoint.load(checkpoint.latest("D") or "")
    checkpoint.save("D", saved.step, weights=saved.weights, state=saved.state, meta=saved.meta | {"logs": marks})
    main(fakes.app, ["eval", "D", "--episodes", "1"])
    train(fakes, 160)


@pytest.mark.parametrize("name", ["metrics.jsonl", "scores.jsonl"])
def test_a_pipe_or_a_device_where_a_log_should_be_is_one_sentence(fakes: Any, capsys: Any, name: str) -> None:
    train(fakes, 60)
    path = Path("D", name)
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/full")):
        path.unlink()
        make(path)
        with pytest.raises(SystemExit):
            train(fakes, 80)
        assert f"D/{name} is a pipe or a device where a file should be: move it away" in capsys.readouterr().err


# ---- while it trains


def row(step: int) -> bytes:
    return b'{"step": %d}\n' % step


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path / "scores.jsonl")
    made.write(row(1))
    return made


def holds(log: Log, *expected: bytes) -> None:
    log.sync()
    text = log.path.read_bytes()
    assert text == b"".join(expected)
    assert (log.bytes, log.crc) == (len(text), zlib.crc32(text)) and not difference(text, log.mark())


def test_what_another_program_adds_meanwhile_is_told_once(log: Log) -> None:
    for step in (2, 3):
        with log.path.open("ab") as other:
            other.write(b"theirs\n")
        log.write(row(step))
    holds(log, row(1), b"theirs\n", row(2), b"theirs\n", row(3))
    assert len(log.notices) == 1 and "was written by another program, too" in log.notices[0] and log.altered


def test_a_row_without_its_end_is_no_row_lost(log: Log) -> None:
    log.path.write_bytes(row(1) + b'{"step": 7}')  # as some editors save
    log.write(row(8))
    holds(log, row(1), row(7), row(8))
    log.close()
    log.path.write_bytes(log.path.read_bytes().rstrip(b"\n"))
    again = Log(log.path)
    holds(again, row(1), row(7), row(8))


def test_a_log_that_is_removed_meanwhile_is_written_again(log: Log) -> None:
    log.path.unlink()
    log.write(row(2))
    holds(log, row(1), row(2))


def test_a_log_that_is_replaced_meanwhile_goes_on_where_it_is(log: Log) -> None:
    other = log.path.with_name("other")
    other.write_bytes(row(1))
    other.replace(log.path)
    log.write(row(2))
    assert not log.notices  # the same rows: nobody need know
    other.write_bytes(row(0) + row(1) + row(2))  # `sed -i` makes another file
    other.replace(log.path)
    log.write(row(3))
    holds(log, row(0), row(1), row(2), row(3))
    assert "was replaced by another program" in log.notices[0]


def test_a_log_that_is_emptied_meanwhile_is_told(log: Log) -> None:
    os.truncate(log.path, 0)
    log.write(row(2))
    holds(log, row(2))
    assert "was cut short by another program" in log.notices[0]


def test_a_run_says_what_happened_to_its_logs(fakes: Any, capsys: Any) -> None:
    def scribble() -> None:
        add("scores.jsonl", b'{"step": 1, "episode/score": 1e9}\n')

    fakes.envs.events[5] = scribble
    train(fakes, 120)
    assert capsys.readouterr().err.count("D/scores.jsonl was written by another program, too") == 1
    assert altered("scores.jsonl") and not altered("metrics.jsonl")
    train(fakes, 160)
    assert "put it back" not in capsys.readouterr().err and altered("scores.jsonl")

"""A run folder whose files were edited, lost, or left by another version: it is said, and nothing goes on as another run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import wm_suite
from wm_run import checkpoint, dreams
from wm_run.cli import main
from wm_run.config import Resumable
from wm_run.loading import load
from wm_run.manifest import read, sealed

pytestmark = pytest.mark.usefixtures("quiet")


made: list[Path] = []


@pytest.fixture
def run(fakes: Any, capsys: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 140 steps: checkpoints at about 100 and 140. Trained once."""
    if not made:
        made.append(tmp_path_factory.mktemp("runs") / "D")
        main(fakes.app, ["train", "--preset", "tiny", "--steps", "140", "--logdir", str(made[0])])
        capsys.readouterr()
    shutil.copytree(made[0], "D")
    return Path("D")


def newest(run: Path) -> Path:
    path = checkpoint.latest(run)
    assert path is not None
    return path


def said(fakes: Any, capsys: Any, line: str) -> str:
    """What a command that succeeds says to people."""
    capsys.readouterr()
    main(fakes.app, line.split())
    return str(capsys.readouterr().err)


def contents(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def as_of_2028e95(run: Path) -> None:
    """Checkpoints without a copy of the config and without a seal."""
    for path in (run / "checkpoint").glob("[0-9]*/manifest.json"):
        old = json.loads(path.read_text())
        old = {name: value for name, value in old.items() if name not in ("seal", "wm_core")}
        old["meta"] = {name: value for name, value in old["meta"].items() if name in ("app", "version", "task")}
        path.write_text(json.dumps(old))


# ---- config.toml


CHANGES = [
    ("lr = 0.001", "lr = 0.002"),
    ("seed = 0", "seed = 1"),
    ("width = 2", "width = 3"),
    ('task = "fake"', 'task = "blind"'),
    ("train_ratio = 2.5", "train_ratio = 2.25"),
    ("branches = [1, 2]", "branches = [1, 3]"),
]


@pytest.mark.parametrize(
    "line, before, after",
    [
        *(("load", *change) for change in CHANGES),
        ("train --logdir D --steps 180", *CHANGES[0]),
        ("train --logdir D --steps 180", *CHANGES[2]),
        ("eval D --episodes 1", *CHANGES[1]),
        ("dream D", *CHANGES[4]),
    ],
)
def test_a_changed_digit_in_the_config_is_noticed(
    fakes: Any, capsys: Any, run: Path, line: str, before: str, after: str
) -> None:
    edit(run / "config.toml", before, after)
    kept = contents(run)
    if line == "load":
        with pytest.raises(ValueError, match=r"config\.toml says") as error:
            load(fakes.app, run)
        told = str(error.value)
    else:
        told = fakes.refused(capsys, line)
    name, value = after.split(" = ")
    assert f"config.toml says {name} = {value.replace('[', '(').replace(']', ')')!s}".replace('"', "'") in told
    assert f"but {newest(run)} was made with" in told and "--init-from" in told
    assert contents(run) == kept


def test_what_a_resume_may_change_may_be_edited_too(fakes: Any, capsys: Any, run: Path) -> None:
    edit(run / "config.toml", "steps = 140", "steps = 180")
    edit(run / "config.toml", "log_every = 40", "log_every = 20")
    assert "config.toml says" not in said(fakes, capsys, "train --logdir D")
    assert checkpoint.load(newest(run)).step >= 180


def test_the_checkpoint_holds_a_copy_of_config_and_protocol(fakes: Any, run: Path) -> None:
    meta = read(newest(run))["meta"]
    assert meta["config"] == tomllib.loads((run / "config.toml").read_text())
    assert meta["protocol"] == json.loads((run / "protocol.json").read_text())


@pytest.mark.parametrize("what", ["missing", "empty", "zeros"])
def test_a_config_that_was_lost_comes_back_from_the_checkpoint(fakes: Any, capsys: Any, run: Path, what: str) -> None:
    """As a power cut leaves it."""
    path, before = run / "config.toml", (run / "config.toml").read_text()
    path.unlink() if what == "missing" else path.write_bytes(b"" if what == "empty" else b"\0" * 300)
    assert what == "missing" or wm_suite.read(run).config == tomllib.loads(before)  # for curves
    said(fakes, capsys, "eval D --episodes 1")
    assert (path.read_bytes() if path.exists() else b"").strip(b"\0") == b""  # who only looks writes nothing
    told = said(fakes, capsys, "train --logdir D --steps 180")
    assert f"config.toml was lost, and is written again from the copy in {run / 'checkpoint'}" in told
    assert path.read_text() == before.replace("steps = 140", "steps = 180")


def test_a_config_that_was_lost_is_refused_where_no_checkpoint_has_a_copy(fakes: Any, capsys: Any, run: Path) -> None:
    as_of_2028e95(run)
    (run / "config.toml").write_bytes(b"")
    for line in ("train --logdir D", "eval D"):
        assert f"{run / 'config.toml'} is empty, and no checkpoint beside it holds a copy" in fakes.refused(
            capsys, line
        )
    (run / "config.toml").unlink()
    assert "holds a checkpoint but no config.toml" in fakes.refused(capsys, "train --preset tiny --lr 3 --logdir D")
    assert "there is no run in D (no config.toml)" in fakes.refused(capsys, "eval D")
    assert not (run / "config.toml").exists() and (run / "scores.jsonl").read_bytes()


def test_a_run_of_before_there_was_a_copy_goes_on_with_one_notice(fakes: Any, capsys: Any, run: Path) -> None:
    as_of_2028e95(run)
    told = said(fakes, capsys, "train --logdir D --steps 180")
    assert told.count("is taken at its word") == 1
    assert "is taken at its word" not in said(fakes, capsys, "train --logdir D --steps 220")  # bound by now


def test_a_field_that_is_newer_than_the_checkpoint_is_no_change(fakes: Any, capsys: Any, run: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Config(fakes.app.config):  # type: ignore[name-defined, misc]
        later: int = 3

    fakes.app = dataclasses.replace(fakes.app, config=Config)
    assert "resuming D" in said(fakes, capsys, "train --logdir D --steps 180")


def test_a_field_that_a_method_lets_change_is_no_change_of_config_toml(fakes: Any, capsys: Any, run: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Config(fakes.app.config):  # type: ignore[name-defined, misc]
        lr: Resumable[float] = 1e-3

    plain = fakes.app
    fakes.app = dataclasses.replace(fakes.app, config=Config)
    edit(run / "config.toml", "lr = 0.001", "lr = 0.5")
    assert "resuming D" in said(fakes, capsys, "train --logdir D --steps 180")
    assert '"lr"' in (run / "config.toml").read_text().split("resumable")[1]
    edit(run / "config.toml", "lr = 0.5", "lr = 0.25")
    assert "resuming D" in said(fakes, capsys, "train --logdir D --steps 220")
    edit(run / "config.toml", "lr = 0.25", "lr = 0.125")
    fakes.app = plain
    assert "config.toml says lr = 0.125" in fakes.refused(capsys, "train --logdir D --steps 260")


def test_another_protocol_is_said(fakes: Any, capsys: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(fakes.envs(1)), "protocol", {"name": "fake", "sizes": (1, 3), "new": 1})
    told = said(fakes, capsys, "train --logdir D --steps 180")
    assert "protocol has changed" in told and "sizes: [1, 2] -> [1, 3]" in told and "new" not in told.split("curve")[1]


# ---- a manifest


@pytest.mark.parametrize(
    "line, old", [("train --logdir D --steps 1000", True), ("train --logdir D", False), ("eval D", True)]
)
def test_a_step_that_was_changed_is_noticed(fakes: Any, capsys: Any, run: Path, line: str, old: bool) -> None:
    if old:
        as_of_2028e95(run)
    path = newest(run)
    edit(path / "manifest.json", f'"step": {path.name}', '"step": 920')
    kept = contents(run)
    told = fakes.refused(capsys, line)
    assert str(path / "manifest.json") in told and "remove this folder" in told
    assert contents(run) == kept


@pytest.mark.parametrize("line", ["train --logdir D --steps 1000", "eval D"])
def test_a_folder_that_was_renamed_with_its_manifest_is_noticed(fakes: Any, capsys: Any, run: Path, line: str) -> None:
    path = newest(run)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(sealed(manifest | {"step": 920})))
    (run / "checkpoint/latest").write_text("920")
    moved = path.rename(path.with_name("920"))
    kept = contents(run)
    assert f"{moved} says step 920, and its run stood at {path.name}" in fakes.refused(capsys, line)
    assert contents(run) == kept


# ---- a checkpoint that is passed over


@pytest.fixture
def broken(run: Path) -> tuple[Path, str]:
    """The last checkpoint, cut short, and the step of the one before it."""
    last = newest(run)
    os.truncate(last / "state.pt", 100)
    return last, newest(run).name


def test_eval_says_which_checkpoint_it_passed_over(fakes: Any, capsys: Any, broken: tuple[Path, str]) -> None:
    main(fakes.app, ["eval", "D", "--episodes", "1"])
    out, err = capsys.readouterr()
    assert f"{broken[0]} lacks a part and is passed over: the one of step {broken[1]} is used" in err
    assert json.loads(out)["step"] == int(broken[1])
    assert json.loads((Path("D/eval") / f"{broken[1]}.json").read_text())["step"] == int(broken[1])


def test_load_and_init_from_say_it(fakes: Any, capsys: Any, broken: tuple[Path, str]) -> None:
    assert load(fakes.app, "D").step == int(broken[1])
    assert f"{broken[0]} lacks a part and is passed over" in capsys.readouterr().err
    told = said(fakes, capsys, "train --preset tiny --steps 20 --init-from D --logdir E")
    assert (
        f"{broken[0]} lacks a part and is passed over" in told and f"weights of {broken[0].parent / broken[1]}" in told
    )


def test_nothing_is_said_where_nothing_was_passed_over(fakes: Any, capsys: Any, run: Path) -> None:
    older = min((run / "checkpoint").glob("[0-9]*"), key=lambda path: int(path.name))
    (older / "state.pt").unlink()  # an older one than the one that is used
    assert "passed over" not in said(fakes, capsys, "eval D --episodes 1")


def test_play_and_dream_print_the_step(fakes: Any, capsys: Any, broken: tuple[Path, str], monkeypatch: Any) -> None:
    from wm_run.openloop import OpenLoop

    def perfect(agent: Any, batch: Any, context: int) -> dict[str, OpenLoop]:
        true = batch.steps["image"].float() / 255
        return {"image": OpenLoop("image", true, true, context, torch.ones_like(batch.steps["first"]))}

    monkeypatch.setattr(dreams, "openloop", perfect)
    main(fakes.app, ["dream", "D", "--observed", "2", "--imagined", "4", "--rows", "3"])
    out, err = capsys.readouterr()
    assert f"at step {broken[1]}" in out and "is passed over" in err
    assert json.loads((Path("D/dream") / f"{broken[1]}.json").read_text())["step"] == int(broken[1])

"""Services outside: they get every number, and nothing that goes wrong there reaches the run."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wm_run import writers
from wm_run.folder import Run
from wm_run.writers import Outside, outside


class Kept:
    """A service in memory, that may fail in one place."""

    def __init__(self, fails: str = "", error: BaseException | None = None) -> None:
        self.fails, self.error = fails, error or RuntimeError("down")
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.finished = False
        self._at("connect")

    def _at(self, place: str) -> None:
        if place == self.fails:
            raise self.error

    def log(self, step: int, values: dict[str, float]) -> None:
        self._at("log")
        self.lines.append((step, values))

    def show(self, step: int, name: str, path: Path) -> None:
        self.lines.append((step, {name: float(path.stat().st_size)}))

    def finish(self) -> None:
        self._at("finish")
        self.finished = True


def test_every_line_arrives_in_order_and_the_service_is_closed():
    kept, said = Kept(), []
    writer = Outside("kept", lambda: kept, say=said.append)
    for step in range(50):
        writer.scalars(step, {"a": float(step)})
    writer.close()
    writer.close()
    assert kept.lines == [(step, {"a": float(step)}) for step in range(50)]
    assert kept.finished and said == []


def test_films_arrive_among_the_lines(tmp_path):
    kept = Kept()
    run = Run(tmp_path, tensorboard=False, writers=[Outside("kept", lambda: kept)])
    run.metrics(1, {"a": 1.0})
    (tmp_path / "policy-2.mp4").write_bytes(b"film")
    run.shown(2, [tmp_path / "policy-2.mp4"])
    run.score(3, 1.0, 1)
    run.close()
    assert [step for step, _ in kept.lines] == [1, 2, 3] and kept.lines[1][1] == {"policy/film": 4.0}


@pytest.mark.parametrize("place", ["connect", "log", "finish"])
@pytest.mark.parametrize("error", [RuntimeError("down\nand out"), OSError(28, "No space left"), SystemExit(1)])
def test_a_failure_anywhere_is_one_line(place, error):
    said: list[str] = []
    writer = Outside("bad", lambda: Kept(place, error), say=said.append, patience=5)
    for step in range(20):
        writer.scalars(step, {"a": 1.0})
    writer.close()
    assert len(said) == 1 and said[0].startswith("--log bad: ") and "\n" not in said[0]
    assert said[0].endswith("; the run goes on without it")


def test_a_service_that_hangs_costs_neither_the_loop_nor_the_end():
    gate, said = threading.Event(), []
    writer = Outside("slow", lambda: gate.wait(60), say=said.append, room=3, patience=0.2)  # type: ignore[arg-type,return-value]
    begin = time.monotonic()
    for step in range(1000):
        writer.scalars(step, {"a": 1.0})
    writer.close()
    assert time.monotonic() - begin < 5
    gate.set()
    assert len(said) == 2 and "does not keep up" in said[0] and "no end after" in said[1]


def test_a_missing_package_names_itself(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "trackio", None)
    said: list[str] = []
    for writer in outside(("wandb", "trackio"), tmp_path, {}, project="p", say=said.append):
        writer.scalars(1, {"a": 1.0})
        writer.close()
    assert [("wandb" in one, "trackio" in one, "uv pip install" in one) for one in said] == [
        (True, False, True),
        (False, True, True),
    ]


def test_an_unknown_service_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tensorbored"):
        outside(("tensorbored",), tmp_path, {}, project="p")


class FakeWandb(SimpleNamespace):
    """What of the package is used."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        super().__init__(Settings=lambda **given: given)

    def init(self, **given: Any) -> FakeWandb:
        self.calls.append(("init", given))
        return self

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.calls.append((name, *args, kwargs))


def test_wandb_gets_the_config_an_axis_of_steps_and_one_id_for_life(monkeypatch, tmp_path):
    ids = []
    for step in (10, 5):  # the second start resumes from an earlier step
        fake = FakeWandb()
        monkeypatch.setitem(sys.modules, "wandb", fake)
        (writer,) = outside(("wandb",), tmp_path / ".", {"seed": 3}, project="mine", say=pytest.fail)
        writer.scalars(step, {"episode/score": 1.0})
        writer.close()
        (_, given), *rest = fake.calls
        ids.append(given["id"])
        assert (given["project"], given["config"], given["resume"]) == ("mine", {"seed": 3}, "allow")
        assert ("define_metric", "*", {"step_metric": "step"}) in rest
        assert ("log", {"step": step, "episode/score": 1.0}, {}) in rest and rest[-1][0] == "finish"
    assert ids[0] == ids[1]


def test_the_services_own_variables_win(monkeypatch, tmp_path):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    outside(("wandb",), tmp_path, {}, project="mine")[0].close()
    assert fake.calls[0][1]["project"] == "theirs"


def test_trackio_gets_the_same(monkeypatch, tmp_path):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    (writer,) = outside(("trackio",), tmp_path, {"seed": 3}, project="mine", say=pytest.fail)
    writer.scalars(7, {"episode/score": 1.0})
    writer.close()
    assert fake.calls[0][1]["project"] == "mine"
    assert fake.calls[1:] == [("log", {"episode/score": 1.0}, {"step": 7}), ("finish", {})]


def test_the_run_folder_passes_scores_and_metrics_on_and_closes(tmp_path):
    kept = Kept()
    run = Run(tmp_path, tensorboard=False, writers=[Outside("kept", lambda: kept)])
    run.score(400, 12.0, 100)
    run.metrics(500, {"train/loss/image": 2.5})
    run.close()
    assert kept.lines == [
        (400, {"episode/score": 12.0, "episode/length": 100}),
        (500, {"train/loss/image": 2.5}),
    ]
    assert kept.finished


def test_a_run_is_the_same_with_a_service_that_fails(tmp_path, monkeypatch):
    """Every file of the folder, byte by byte."""
    monkeypatch.setattr("wm_run.folder.time", SimpleNamespace(time=lambda: 5.0, process_time=lambda: 5.0))
    texts = []
    for name, fails in (("without", None), ("with", "log")):
        made = [Outside("bad", lambda: Kept(fails), say=lambda sentence: None)] if fails else []  # noqa: B023
        run = Run(tmp_path / name, tensorboard=False, writers=made)
        for step in range(30):
            run.metrics(step, {"a": step})
        run.close()
        texts.append({path.name: path.read_bytes() for path in Path(tmp_path / name).iterdir()})
    assert texts[0] == texts[1]


def test_nothing_is_imported_where_nothing_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(writers.importlib, "import_module", pytest.fail)
    assert outside((), tmp_path, {}, project="p") == []

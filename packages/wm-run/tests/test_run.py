"""The run folder as its readers see it: json, TensorBoard's own reader, a video decoder; and the progress line."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from wm_run import machine as module
from wm_run.errors import RunError
from wm_run.folder import Run, default_logdir
from wm_run.loop import PRIVATE
from wm_run.progress import Progress, duration
from wm_run.toml import to_toml
from wm_run.video import write_video


def lines(path: Path) -> list[dict[str, Any]]:
    def strict(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    rows = [json.loads(line, parse_constant=strict) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in {"time/wall", "time/cpu"}} for row in rows]


def scalars(logdir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    shown = EventAccumulator(str(logdir))
    shown.Reload()
    return {tag: [(e.step, e.value) for e in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


def test_lines_carry_the_names_that_plotting_scripts_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.score(400, 21.0, 100)
    run.score(800, float(np.float32(0.5)), 7, win=np.bool_(True), wins=np.int64(3))
    run.metrics(1000, {"train/loss/image": torch.tensor(2.5), "fps/train": 3})
    run.close()
    assert lines(tmp_path / "scores.jsonl") == [
        {"step": 400, "episode/score": 21.0, "episode/length": 100},
        {"step": 800, "episode/score": 0.5, "episode/length": 7, "episode/win": 1, "episode/wins": 3},
    ]
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1000, "train/loss/image": 2.5, "fps/train": 3}]
    assert scalars(tmp_path)["episode/score"] == [(400, 21.0), (800, 0.5)]
    assert scalars(tmp_path)["train/loss/image"] == [(1000, 2.5)]


def test_every_row_of_metrics_says_when_it_was_written_and_no_comparison_of_runs_minds(tmp_path: Path) -> None:
    before = time.time()
    for name in ("a", "b"):
        run = Run(tmp_path / name)
        run.metrics(1, {"loss": 1.0})
        run.close()
    (row,) = (json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines())
    assert before - 0.001 <= row["time/wall"] <= time.time()
    assert 0 < row["time/cpu"] <= time.process_time() + 0.01
    assert not {"time/wall", "time/cpu"} & {*scalars(tmp_path / "a")}
    assert "time/wall".startswith(PRIVATE) and "time/cpu".startswith(PRIVATE)


def test_config_films_and_pictures_are_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Run(tmp_path)
    run.config({"steps": 400, "lr": 0.5})
    frames = np.zeros((150, 8, 8, 3), np.uint8)
    frames[75:] = 255
    picture = tmp_path / "video/openloop-7.png"
    film = run.video("policy", 7, frames, 15)
    imageio.imwrite(picture, frames[0])
    run.shown(7, [film, picture])
    run.close()
    shown = EventAccumulator(str(tmp_path))
    shown.Reload()
    (text,) = shown.Tensors("config")
    assert b"steps = 400" in text.tensor_proto.string_val[0] and b"lr = 0.5" in text.tensor_proto.string_val[0]
    (moving,), (still,) = shown.Images("policy/film"), shown.Images("openloop/picture")
    assert moving.step == still.step == 7 and still.encoded_image_string == picture.read_bytes()
    with Image.open(io.BytesIO(moving.encoded_image_string)) as film_shown:
        lasting = [one.info["duration"] for one in ImageSequence.Iterator(film_shown)]
        first, last = (np.asarray((film_shown.seek(at), film_shown.convert("L"))[1]) for at in (0, len(lasting) - 1))
    assert len(lasting) <= 100 and first.max() < 20 and last.min() > 235
    assert sum(lasting) == pytest.approx(10_000, abs=200)  # milliseconds, as long as the film


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics(1, {"a": math.nan, "b": -math.inf, "c": torch.tensor(float("inf")), "d": 1.0})
    run.close()
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "a": None, "b": None, "c": None, "d": 1.0}]
    assert math.isnan(scalars(tmp_path)["a"][0][1])


def test_a_line_is_on_disk_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path, tensorboard=False)
    run.metrics(1, {"a": 1})
    assert len(lines(tmp_path / "metrics.jsonl")) == 1
    run.close()
    run.close()


def test_resuming_cuts_the_logs_back_to_the_checkpoint(tmp_path: Path) -> None:
    """Killed at 300 with a checkpoint at 200, then resumed: as if never killed, in the files and in TensorBoard."""
    run = Run(tmp_path)
    for step in (100, 200):
        run.metrics(step, {"loss": step})
        run.score(step, step, 1)
    offsets = run.offsets()
    run.metrics(200, {"loss": -1})
    run.metrics(300, {"loss": -1})
    run.score(300, -1, 1)
    run.flush()
    json.loads(json.dumps(offsets))
    resumed = Run(tmp_path)
    resumed.cut(offsets)
    assert resumed.offsets() == offsets
    for step in (300, 400):
        resumed.metrics(step, {"loss": step})
        resumed.score(step, step, 1)
    resumed.close()
    assert [(v["step"], v["loss"]) for v in lines(tmp_path / "metrics.jsonl")] == [(s, s) for s in (100, 200, 300, 400)]
    assert [v["episode/score"] for v in lines(tmp_path / "scores.jsonl")] == [100, 200, 300, 400]
    assert scalars(tmp_path)["episode/score"] == [(s, s) for s in (100, 200, 300, 400)]
    assert [pair for pair in scalars(tmp_path)["loss"] if pair[0] > 200] == [(300, 300), (400, 400)]


def test_cutting_in_the_middle_of_a_run_and_cutting_everything(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics(10, {"loss": 1})
    offsets = run.offsets()
    run.metrics(20, {"loss": 2})
    run.cut(offsets)
    run.metrics(30, {"loss": 3})
    run.flush()
    assert scalars(tmp_path)["loss"] == [(10, 1), (30, 3)]
    run.cut({})
    run.metrics(5, {"loss": 4})
    run.close()
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 5, "loss": 4}]
    assert scalars(tmp_path)["loss"] == [(5, 4)]


def test_a_torn_line_and_a_shorter_file_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    run = Run(tmp_path, tensorboard=False)
    run.cut({"step": 9, "metrics.jsonl": 10_000, "scores.jsonl": 50})
    run.metrics(10, {"a": 1})
    run.close()
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 10, "a": 1}]
    assert lines(tmp_path / "scores.jsonl") == []


def test_without_tensorboard_no_event_file_and_its_absence_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, tensorboard=False)
    run.metrics(1, {"a": 1})
    run.close()
    assert not list(tmp_path.glob("events*"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"install wm-run"):
        Run(tmp_path)


def test_the_start_is_written_down(tmp_path: Path) -> None:
    run = Run(tmp_path, tensorboard=False)
    run.protocol({"sticky": np.float64(0.0), "noops": (0, 30), "limit": math.inf, "none": None})
    run.config({"task": "toy:catch", "size": {"deter": 8}})
    run.environment()
    run.close()
    protocol = json.loads((tmp_path / "protocol.json").read_text())
    assert protocol == {"sticky": 0.0, "noops": [0, 30], "limit": None, "none": None}
    assert tomllib.loads((tmp_path / "config.toml").read_text()) == {"task": "toy:catch", "size": {"deter": 8}}
    run.config("seed = 1\n")
    assert tomllib.loads((tmp_path / "config.toml").read_text()) == {"seed": 1}
    env = json.loads((tmp_path / "env.json").read_text())
    assert env["packages"]["torch"] and env["hardware"]["memory_bytes"] > 2**20 and env["hardware"]["cores"] >= 1
    head = subprocess.run(
        ["git", "-C", Path(__file__).parent, "rev-parse", "HEAD"], check=False, capture_output=True, text=True
    )
    if head.returncode == 0 and "site-packages" not in module.__file__:
        assert env["commit"].rstrip("+") == head.stdout.strip()


def test_toml_comes_back() -> None:
    values = {
        "a": 1, "b": 2.5, "c": True, "d": 'quote " back \\ \n Δ', "e": ["x", "y"], "f": 1e-20, "g": math.inf,
        "odd key": 1, "t": {"u": {"v": [1, 2]}, "w": 0, "empty": {}},
    }  # fmt: skip
    assert tomllib.loads(to_toml(values)) == values
    assert tomllib.loads(to_toml({"path": Path("/x"), "none": None, "pair": (1, 2)})) == {"path": "/x", "pair": [1, 2]}
    with pytest.raises(RunError, match=r"config\.toml"):
        to_toml({"x": object()})


def test_folder_names_have_four_parts(tmp_path: Path) -> None:
    path = default_logdir(tmp_path, "gym:ALE/Pong-v5", "po-dreamer:full", 7)
    stamp, task, method, seed = path.name.split("-")
    assert (task, method, seed) == ("gym_ALE_Pong_v5", "po_dreamer_full", "7")
    assert len(stamp) == 15 and path.parent == tmp_path
    path.mkdir()
    assert default_logdir(tmp_path, "gym:ALE/Pong-v5", "po-dreamer:full", 7) != path


# ---- video


@pytest.mark.parametrize(("height", "width", "factor"), [(64, 64, 4), (33, 65, 8), (301, 303, 1), (64, 1000, 2)])
def test_a_video_decodes_to_the_frames_enlarged(tmp_path: Path, height: int, width: int, factor: int) -> None:
    import imageio.v3 as imageio

    frames = np.zeros((7, height, width, 3), np.uint8)
    for t in range(7):
        frames[t, : height // 2] = (200, 40 + 20 * t, 60)
        frames[t, :, width // 2 :] = (20, 30, 220 - 20 * t)
    run = Run(tmp_path, tensorboard=False)
    path = run.video("report/openloop", 1200, frames, fps=15)
    assert path == tmp_path / "video" / "report_openloop-1200.mp4"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    seen = imageio.imread(path, plugin="pyav")
    even = [factor * n + factor * n % 2 for n in (height, width)]
    assert seen.shape == (7, *even, 3)
    wanted = frames.repeat(factor, 1).repeat(factor, 2).astype(int)
    error = np.abs(seen[:, : factor * height, : factor * width].astype(int) - wanted)
    assert error.mean() < 4 and imageio.immeta(path, plugin="pyav")["fps"] == 15


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_frames_of_another_kind_are_refused(tmp_path: Path, frames: Any) -> None:
    with pytest.raises(RunError, match="a video is uint8"):
        write_video(tmp_path / "x.mp4", frames, 15)


def test_a_missing_video_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RunError, match=r"package av: install wm-run"):
        write_video(tmp_path / "x.mp4", np.zeros((2, 8, 8, 3), np.uint8), 15)


# ---- progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_every_half_minute_and_at_the_end() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(4000, stream=stream, clock=clock, label="train") as progress:
        for step in range(0, 1001, 4):
            clock.now = step / 10
            progress.update(step, score=12.0, loss=0.123456)
    shown = stream.getvalue().splitlines()
    assert len(shown) == 4
    assert shown[-1] == "train 1,000/4,000 (25%) | 10 steps/s | ETA 5m 0s | score 12 | loss 0.1235"


def test_no_rich_where_there_is_no_terminal() -> None:
    code = (
        "import io, sys; sys.modules['rich'] = None; from wm_run.progress import Progress\n"
        "with Progress(10, stream=io.StringIO()) as p: p.update(5)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_eta_follows_a_change_of_speed_smoothly() -> None:
    clock = Clock()
    progress = Progress(10**6, stream=io.StringIO(), clock=clock, smooth=60)
    assert progress.speed() is None and "ETA ?" in progress.text()
    step = 0.0
    for speed, seconds in ((1000, 300), (10, 300)):  # prefill, then training
        for _ in range(seconds):
            clock.now, step = clock.now + 1, step + speed
            progress.update(int(step))
        lately = progress.speed()
        assert lately is not None and lately == pytest.approx(speed, rel=1, abs=0)
    seen = progress.speed()
    clock.now += 1
    progress.update(int(step) + 200)  # one odd second
    now = progress.speed()
    assert seen is not None and now is not None and abs(now - seen) < 6


def test_no_time_is_told_from_a_speed_that_will_not_last() -> None:
    clock = Clock()
    progress = Progress(2000, stream=io.StringIO(), clock=clock)
    progress.measuring, clock.now = True, 10
    progress.update(1000)
    assert "100 steps/s | ETA measuring" in progress.text()
    progress.restart(1000)
    progress.measuring, clock.now = False, 20
    progress.update(1010)
    assert "1.0 steps/s | ETA 16m 30s" in progress.text()


def test_what_is_done_between_two_steps_tells_how_long_it_takes() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(2000, start=1000, stream=stream, clock=clock, every=1000)
    for burst in (300, 200):  # what was measured in the first is its own
        for done in range(11):
            clock.now += 2 if burst == 300 else 4
            progress.countdown("updates due", burst - done)
        left = {300: "290 (9m 40s)", 200: "190 (12m 40s)"}[burst]
        assert progress.text() == f"train 1,000/2,000 (50%) | 0.0 steps/s | ETA ? | updates due {left}"
        progress.countdown("updates due", 0)
        assert "updates due" not in progress.text()
    progress.countdown("updates due", 7)
    assert "updates due 7" in progress.text() and "(" not in progress.text().partition("due")[2]


def test_a_resumed_run_does_not_count_what_was_done_before() -> None:
    clock = Clock()
    progress = Progress(2000, start=1000, stream=io.StringIO(), clock=clock)
    clock.now = 10
    progress.update(1100)
    assert progress.speed() == pytest.approx(10) and "ETA 1m 30s" in progress.text()


def test_many_updates_in_no_time_are_neither_shown_nor_divided_by_zero() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(0, stream=stream, clock=clock)
    for step in range(1000):
        progress.update(step)
    assert stream.getvalue() == ""
    progress.close()
    progress.close()
    assert stream.getvalue() == "train 999/0\n"


def test_a_terminal_gets_a_live_bar() -> None:
    stream = Terminal()
    with Progress(100, start=0, stream=stream) as progress:
        progress.update(40, score=3, task="[toy]")
    shown = stream.getvalue()
    assert "40/100" in shown and "score 3" in shown and "[toy]" in shown


def test_an_error_inside_still_ends_the_line() -> None:
    stream = io.StringIO()
    progress = Progress(10, stream=stream, clock=Clock())
    progress.update(3)
    with pytest.raises(KeyError), progress:
        raise KeyError
    assert stream.getvalue().startswith("train 3/10")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.6, "1m 0s"), (3599.9, "1h 0m"), (86_400, "1d 0h"), (math.inf, "?")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text

"""Recordings from end to end: environments, players and data sets of others, by `wm-run` and back to the same records."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from env_adapters import decode_action, make_vec
from wm_core.errors import UserError
from wm_run import command
from wm_run.collect import Collection, collect
from wm_run.import_command import imported
from wm_run.recorder import Writer
from wm_run.recording import Recording

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


def exported(recording: Recording, part: str, name: str) -> None:
    """A part's whole episodes as a Minari data set of the native actions, by minari itself."""
    minari = importlib.import_module("minari")
    buffer = importlib.import_module("minari.data_collector").EpisodeBuffer
    buffers = []
    for at, episode in enumerate(e for e in recording.episodes(part) if e.ended != "cut"):
        its = recording.part(part).episode(episode)
        actions = np.stack([decode_action(recording.action_space, one) for one in its["action"][1:]])
        seen = {key: its[key] for key in recording.observation_space.spaces}
        ends = [its["terminal"][1:].tolist(), (its["last"] & ~its["terminal"])[1:].tolist()]
        buffers.append(buffer(at, 0, None, seen, actions, its["reward"][1:].tolist(), *ends, {}))
    described = {"observation_space": recording.observation_space, "action_space": recording.action_space}
    minari.create_dataset_from_buffers(name, buffer=buffers, data_format="hdf5", jpeg_encoding=False, **described)


@pytest.mark.parametrize("task", ["toy:catch", "toy:doors", "gym:Pendulum-v1"])
def test_collected_exported_as_minari_and_imported_it_is_the_same(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    options = {"max_episode_steps": 20} if task.startswith("gym:") else {}
    one = collect(Collection(task, tmp_path / "a", 120, envs=2, held_out=0.0, options=options, workers=0))
    assert one is not None
    exported(one, "train", "round/trip-v0")
    other = imported("round/trip-v0", tmp_path / "b", held_out_every=3)
    assert other.observation_space == one.observation_space and other.action_spec == one.action_spec
    whole = [e for e in one.episodes("train") if e.ended != "cut"]
    parts = {"train": iter(other.episodes("train")), "held_out": iter(other.episodes("held_out"))}
    for at, episode in enumerate(whole):
        part = "held_out" if at % 3 == 2 else "train"
        again, mine = next(parts[part]), one.part("train").episode(episode)
        theirs = other.part(part).episode(again)
        assert (again.length, again.ended) == (episode.length, episode.ended)
        assert again.score == pytest.approx(episode.score, rel=1e-6)
        assert theirs.keys() == {key for key in mine if not key.startswith("told/")}
        for key, value in theirs.items():
            same = np.allclose(value, mine[key], atol=1e-6) if key == "action" else (value == mine[key]).all()
            assert same and value.dtype == mine[key].dtype, key
    assert not any(next(left, None) for left in parts.values())


def test_a_recording_is_what_its_environment_does_with_its_actions(tmp_path: Path) -> None:
    recording = collect(Collection("toy:doors", tmp_path / "a", 200, seed=3, envs=3, held_out=0.2))
    assert recording is not None
    with make_vec("toy:doors", 3) as envs:
        step, records = envs.reset(3), list(recording.records("train"))
        for t, record in enumerate(records):
            assert all((record[key] == value).all() for key, value in step.items())
            assert all((record[key] == value).all() for key, value in envs.told().items())
            if t + 1 < len(records):
                step = envs.step(records[t + 1]["action"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dreamer of the smallest size that has made a few updates."""
    from dreamer.cli import APP
    from wm_run.cli import main

    folder = tmp_path_factory.mktemp("run") / "catch"
    line = f"train --preset tiny --task toy:catch --logdir {folder} --steps 80 --final-episodes 0 --device cpu --final-video False"
    main(APP, [*line.split(), "--tensorboard", "False"])
    return folder


def test_a_trained_run_plays_and_is_gone_on_with(trained: Path, tmp_path: Path) -> None:
    def asked(name: str) -> Collection:
        who = ("random:0.5", f"{trained}:0.5")
        return Collection("toy:catch", tmp_path / name, 120, who=who, seed=1, envs=2, held_out=0.2, device="cpu")

    one = collect(asked("a"))
    assert one is not None
    while (left := iter(range(25))) and collect(asked("b"), stopped=lambda left=left: next(left, None) is None) is None:  # type: ignore[misc]
        pass
    files = [
        {str(p.relative_to(tmp_path / n)): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in "ab"
    ]
    for folder in files:
        folder.pop(".lock")
    assert files[0] == files[1] and [part["who"] for part in one.source] == ["random", "run:catch"]
    with pytest.raises(UserError, match="was trained on toy:catch, whose observations, actions or agents are others"):
        collect(Collection("toy:doors", tmp_path / "c", 10, who=(str(trained),), envs=1, device="cpu"))


def test_import_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robot = ROOT / "packages" / "env-adapters" / "tests" / "lerobot" / "v3.0"
    assert command.main(["import", str(robot), "--to", str(tmp_path / "a"), "--held-out-every", "3"]) == 0
    told = capsys.readouterr()
    assert "in 2 episodes to learn from" in told.out and "in 1 held out" in told.out
    assert "no frame was taken after an episode's last action" in told.err
    for words, sentence in (
        (["import", str(robot), "--to", str(tmp_path / "a")], "holds a finished recording"),
        (["import", str(robot), "--to", str(tmp_path / "b"), "--held-out-every", "1"], "leaves nothing to learn from"),
        (["import", str(tmp_path), "--to", str(tmp_path / "b")], "is no data set that can be read"),
        (["import", "no/such-v0", "--to", str(tmp_path / "b")], "there is no data set 'no/such-v0' here"),
        (["look", str(tmp_path / "a"), "--env.size", "3"], "look has no option --env.size"),
    ):
        assert command.main(words) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wm-run: ")]
        assert len(said) == 1 and sentence in said[0]


def test_the_page_of_ones_own_data_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "recordings.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "recordings.md", "exec"), {})
    (line,) = re.findall(r"^uv run wm-run (import episodes .*)$", text, re.MULTILINE)
    assert command.main(line.split()) == 0
    recording = Recording.open("recordings/walk")
    assert len(recording.episodes("train")) == 18 and len(recording.episodes("held_out")) == 2
    for record in recording.records("train"):
        cell = record["told/place"][0, 0]
        assert record["reward"][0] == (cell == 7 and not record["first"][0])
        assert (record["image"][0, 8].max(-1) > 0).argmax() == 2 * cell
    (shown,) = re.findall(r"^```text\n(from .*?)^```", text, re.DOTALL | re.MULTILINE)
    exec(compile(shown.replace(": ...", ": pass"), "recordings.md", "exec"), {})
    kinds = re.findall(r"^uv run wm-run (\w+)", text, re.MULTILINE)
    assert {"collect", "import", "look"} <= set(kinds) <= set(command.VERBS)


def test_what_does_not_fit_leaves_no_recording_and_its_place_free(tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    folder.mkdir()
    for name, speed in (("0", 1.0), ("1", np.nan)):
        values: dict[str, Any] = {"action": np.zeros(3, int), "speed": np.full((4, 1), speed), "truncated": True}
        np.savez(folder / f"{name}.npz", **values)
    with pytest.raises(ValueError, match=r"1.npz: it shows 'speed' with the value nan"):
        imported(str(folder), tmp_path / "a")
    np.savez(folder / "1.npz", action=np.zeros(2, int), speed=np.zeros((3, 1)), truncated=True)
    found = imported(str(folder), tmp_path / "a", held_out_every=0, task="gym:MyEnv-v0")
    assert found.steps("train") == 5 and found.steps("held_out") == 0 and found.task == "gym:MyEnv-v0"
    assert list(found.records("held_out")) == []


def test_an_import_that_was_killed_is_begun_anew_and_a_collection_is_not_lost_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = str(ROOT / "packages" / "env-adapters" / "tests" / "lerobot" / "v3.0")
    unbroken, episode, calls = imported(robot, tmp_path / "a", held_out_every=0), Writer.episode, iter(range(9))

    def killed(self: Writer, part: str, arrays: Any) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        episode(self, part, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "episode", killed)
        with pytest.raises(KeyboardInterrupt):
            imported(robot, tmp_path / "b", held_out_every=2)
    with pytest.raises(UserError, match="is not finished"):
        Recording.open(tmp_path / "b")
    assert imported(robot, tmp_path / "b", held_out_every=0).checksum == unbroken.checksum
    names = [sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*")) for n in "ab"]
    assert names[0] == names[1]
    begun = Collection("toy:catch", tmp_path / "c", 100, envs=2)
    left = iter(range(5))
    assert collect(begun, stopped=lambda: next(left, None) is None) is None
    with pytest.raises(UserError, match="was begun with"):
        imported(robot, tmp_path / "c")
    assert collect(begun) is not None


def test_the_players_of_tools_follow_the_ball() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        players: Any = importlib.import_module("players")
    finally:
        sys.path.remove(str(ROOT / "tools"))
    with make_vec("atari100k_breakout", 2, workers=0) as envs:
        step, total = envs.reset(0), np.zeros(2)
        for _ in range(250):
            step = envs.step(players.breakout(step))
            total += step["reward"]
    assert total.min() >= 3  # random play has about 1.7 when its game is over


def test_the_script_starts_without_torch() -> None:
    code = "import sys; from wm_run.command import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "collect" in done.stdout

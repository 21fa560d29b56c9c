"""A run that learns from a recording: what it learns from, how its steps are counted, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from wm_core.errors import UserError
from wm_run.cli import main
from wm_run.from_python import train
from wm_run.held_out import rows
from wm_run.loop import Ratio
from wm_run.offline import Made, check_fits, fill
from wm_run.recorder import Writer
from wm_run.recording import About, ActionSizes, Recording
from wm_run.replay import Replay
from wm_run.replaying import Replaying
from wm_run.stand_in import StandIn
from wm_run.teams import Team
from wm_run.testing.differences import compare_runs

SPACE = spaces.Dict({"image": spaces.Box(0, 255, (16, 16, 3), np.uint8)})
ABOUT = About(SPACE, spaces.Discrete(3), ActionSizes((3,)), task="fake", repeat=4, protocol={"name": "fake"})


def records(fakes: Any, count: int, n: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """Of fake environments, each value its own."""
    envs, rng = fakes.envs(n), np.random.default_rng(seed)
    found = [envs.reset(seed)]
    while len(found) < count:
        found.append(envs.step(np.eye(3, dtype=np.float32)[rng.integers(3, size=n)]))
    return [record | {"told/place": rng.random((n, 2), np.float32)} for record in found]


def recorded(folder: Path, train: list[Any], held_out: list[Any] = [], about: About = ABOUT) -> Path:  # noqa: B006
    writer = Writer(folder, about, streams=dict.fromkeys(("train", "held_out"), len(train[0]["first"])))
    for part, all_of in (("train", train), ("held_out", held_out)):
        for record in all_of:
            writer.add(part, record)
    writer.finish([{"who": "random", "share": 1.0, "steps": 1, "seed": 0}])
    return folder


@pytest.fixture
def folder(fakes, tmp_path: Path) -> Path:
    """A recording in a folder called `recording`, which lies where the tests run."""
    return recorded(tmp_path / "recording", records(fakes, 90), records(fakes, 30, seed=1))


OFFLINE = "train --preset tiny --device cpu --final-video False --held-out-every 0 --data recording"


def test_a_recording_is_gone_through_whoever_acts(fakes, folder: Path) -> None:
    """The first stream of the held-out records, over and over, with the actions that were taken."""
    envs, there = Replaying(Recording.open(folder)), records(fakes, 30, seed=1)
    step = envs.reset(5)
    for t in range(70):
        for name in there[0].keys() - {"told/place"}:
            assert np.array_equal(step[name], there[t % 30][name][:1]), (t, name)
        assert "told/place" not in step and step["image"].shape[0] == envs.num_envs == 1
        assert np.array_equal(envs.acted, there[(t + 1) % 30]["action"][:1])
        step = envs.step(np.full((1, 3), t, np.float32))


def test_where_nothing_is_held_out_what_was_learned_from_is_gone_through(fakes, tmp_path: Path) -> None:
    there = records(fakes, 5)
    envs = Replaying(Recording.open(recorded(tmp_path / "all", there)))
    assert np.array_equal(envs.reset(0)["image"], there[0]["image"][:1])
    assert np.array_equal(envs.step(np.zeros((1, 3), np.float32))["image"], there[1]["image"][:1])


def test_the_replay_is_what_was_recorded_and_notes_that_are_zero(fakes, folder: Path) -> None:
    envs, there = StandIn(Recording.open(folder)), records(fakes, 90)
    replay = Replay(None, 2, stores={"deter": 1}, limit_bytes=10**9, chunk=7, length=4, online=False)
    fill(replay, envs, {"deter": torch.ones(2, 5, dtype=torch.float16)})
    assert replay.steps == 180 == envs.records
    for _ in range(6):
        whole = replay.sample(1, 90)
        stream = int(whole.index.stream[0])
        assert whole.steps.keys() == {*there[0], "deter", "weight", "reset"} - {"told/place"}
        for name in there[0].keys() - {"told/place"}:
            expected = np.stack([record[name][stream] for record in there])
            assert np.array_equal(whole.steps[name][0].numpy(), expected), name
        assert whole.steps["deter"].dtype == torch.float16 and not whole.steps["deter"].any()


@pytest.mark.parametrize(("ratio", "replayed", "repeat"), [(2.5, 8, 4), (64.0, 1024, 1), (1024.0, 96, 2), (0.3, 7, 1)])
def test_as_many_updates_are_made_as_a_run_in_the_environment_owes(ratio: float, replayed: int, repeat: int) -> None:
    at, owed = Made({}, None, Ratio(ratio, replayed), np.zeros(1), np.zeros(1, np.int64)), Ratio(ratio, replayed)
    owed.owed, policy, due = 0.0, 0, 0
    for made in range(1, 300):
        steps = at.made_update(repeat)
        due, policy = due + owed.due(steps), policy + steps
        assert at.made == made and at.steps == policy * repeat == at.played * repeat
        assert policy == made * replayed * 10 // round(ratio * 10) and 0 <= made - due <= 1 + ratio / replayed


def test_no_environment_is_made_and_the_run_says_where_it_stands(fakes, folder: Path, monkeypatch, capsys) -> None:
    alone = dataclasses.replace(fakes.app, environments=lambda config, n: pytest.fail("an environment was made"))
    main(alone, [*OFFLINE.split(), "--logdir", "D"])
    kept = tomllib.loads(Path("D/config.toml").read_text())
    assert kept["task"] == "fake" and kept["data"] == str(folder)
    assert kept["data_checksum"] == Recording.open(folder).checksum
    lines = [json.loads(line) for line in Path("D/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [48, 88, 128, 164, 204, 240]  # 12 or 16 steps an update
    assert lines[-1]["train/updates"] == 19 and lines[-1]["replay/steps"] == 180
    assert "60 episodes" not in capsys.readouterr().err
    main(fakes.app, ["eval", "D", "--episodes", "2"])


def test_stopped_and_resumed_it_is_the_run_that_went_on(fakes, folder: Path) -> None:
    main(fakes.app, [*OFFLINE.split(), "--logdir", "whole"])
    main(fakes.app, [*OFFLINE.split(), "--logdir", "halves", "--steps", "100"])
    torch.rand(3)
    main(fakes.app, ["train", "--logdir", "halves", "--steps", "240"])
    parts = compare_runs("fakeapp", Path("whole"), Path("halves"))
    assert not [part for part in parts if part.differences]


def test_a_run_goes_on_with_its_recording_wherever_that_lies_and_with_no_other(fakes, folder, tmp_path, capsys) -> None:
    main(fakes.app, [*OFFLINE.split(), "--logdir", "D", "--steps", "100"])
    recorded(tmp_path / "other", records(fakes, 90, seed=5))
    assert "is not the recording that this run began with" in fakes.refused(capsys, "train --logdir D --data other")
    folder.rename(tmp_path / "moved")
    assert "there is no recording in" in fakes.refused(capsys, "train --logdir D --steps 200")
    main(fakes.app, ["train", "--logdir", "D", "--data", "moved", "--steps", "200"])
    assert "this run began from the recording" in fakes.refused(capsys, "train --logdir D --data=")
    main(fakes.app, ["train", "--preset", "tiny", "--device", "cpu", "--final-video", "False", "--logdir", "E"])
    assert "this run began in its environments" in fakes.refused(capsys, "train --logdir E --data moved")


def test_what_cannot_be_learned_from_is_one_sentence_and_leaves_no_run(fakes, folder, tmp_path, capsys) -> None:
    said = {
        "train --preset tiny --data_checksum 3": "is filled in by a run that learns from --data: leave it out",
        f"{OFFLINE} --task blind": "is a recording of fake, not of blind",
        f"{OFFLINE} --env.cues 3": "was recorded with the options {} of fake: leave out --env.cues",
        f"{OFFLINE} --train_ratio 0": "needs a --train-ratio above 0",
        f"{OFFLINE} --length 91": "holds 90 records in each of its streams, and a row has 91",
        f"{OFFLINE} --chunk 8 --replay_bytes 100000": "give --replay-bytes 1",
        OFFLINE.replace("recording", "nowhere"): "there is no recording in nowhere",
    }
    for line, words in said.items():
        assert words in fakes.refused(capsys, line), line
    own = dataclasses.replace(fakes.app, recordings=False)
    with pytest.raises(SystemExit):
        main(own, OFFLINE.split())
    assert "leave out --data" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("config.toml"))


def test_from_python_it_is_the_same_run_and_refuses_the_same(fakes, folder: Path) -> None:
    more: dict[str, Any] = {"preset": "tiny", "device": "cpu", "final_video": False, "held_out_every": 0, "steps": 100}
    with pytest.raises(UserError, match="is a recording of fake, not of blind"):
        train(fakes.app, "blind", data="recording", logdir="A", **more)
    with pytest.raises(UserError, match=r"leave out --env\.cues"):
        train(fakes.app, data=folder, options={"cues": 3}, logdir="B", **more)
    assert train(fakes.app, data=folder, logdir="C", **more).config.task == "fake"
    main(fakes.app, [*OFFLINE.split(), "--logdir", "D", "--steps", "100"])
    assert not [part for part in compare_runs("fakeapp", Path("C"), Path("D")) if part.differences]


def test_the_budget_that_a_refusal_names_is_enough(fakes, folder: Path) -> None:
    envs = StandIn(Recording.open(folder))
    small = Replay(None, 2, stores={}, limit_bytes=10**5, chunk=8, length=4, online=False)
    with pytest.raises(UserError, match="--replay-bytes") as refused:
        check_fits(envs, small, 900, 4)
    enough = int(re.findall(r"--replay-bytes (\d+)", str(refused.value))[0])
    check_fits(envs, Replay(None, 2, stores={}, limit_bytes=enough, chunk=8, length=4, online=False), 900, 4)


def test_masks_need_a_team_and_a_team_needs_masks(fakes, tmp_path: Path) -> None:
    masked = [record | {"action_mask": np.ones((2, 3), bool)} for record in records(fakes, 9)]
    with pytest.raises(UserError, match="no app obeys those of a single agent"):
        StandIn(Recording.open(recorded(tmp_path / "masked", masked)))
    team = [
        {
            key: value if value.ndim == 1 and key != "reward" else value[:, None].repeat(3, 1)
            for key, value in one.items()
        }
        for one in records(fakes, 9)
    ]
    about = dataclasses.replace(ABOUT, team=Team(3))
    with pytest.raises(UserError, match="lack action_mask and alive"):
        StandIn(Recording.open(recorded(tmp_path / "team", team, about=about)))


def test_held_out_rows_are_the_records_in_order(fakes, folder: Path) -> None:
    recording = Recording.open(folder)
    whole = {
        name: np.concatenate([block[name] for block in recording.blocks("held_out")], 1) for name in ("image", "first")
    }
    for pieces in (30, 7, 4):  # as the blocks of a recording come
        blocks = [{n: v[:, at : at + pieces] for n, v in whole.items()} for at in range(0, 30, pieces)]
        part = SimpleNamespace(position=30)
        envs: Any = SimpleNamespace(
            blocks=lambda part, all_of=blocks: iter(all_of), recording=SimpleNamespace(part=lambda name, one=part: one)
        )
        for length, steps, count in ((8, 1000, 3), (8, 17, 2), (5, 1000, 6), (50, 1000, 1)):
            found = list(rows(envs, length, steps))
            taken = min(length, 30)
            assert [row["first"].shape for row in found] == [(2, taken)] * count
            for i, row in enumerate(found):
                assert all(np.array_equal(row[n], whole[n][:, i * taken : (i + 1) * taken]) for n in whole)

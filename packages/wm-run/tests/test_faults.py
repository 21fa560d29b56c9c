"""What can go wrong around a run, each through the command line: one clear sentence, and nothing older is lost."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from wm_core.types import Batch, Index
from wm_run import checkpoint, preflight
from wm_run.alarm import NotFinite, Sentinel, check_weights
from wm_run.cli import main
from wm_run.manifest import sealed
from wm_run.replay import Replay

LOG = "metrics.jsonl"


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def run(fakes: Any, capsys: Any) -> Path:
    """A run of 140 steps: checkpoints at about 100 and 140, the replay in its third and fourth chunk."""
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "140", "--logdir", "D", "--chunk", "8"])
    capsys.readouterr()
    return Path("D")


def contents(folder: Path) -> dict[str, str]:
    """Every file with its hash."""
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def newest(run: Path) -> Path:
    path = checkpoint.latest(run)
    assert path is not None
    return path


# ---- alarms


def poison(monkeypatch: pytest.MonkeyPatch, fakes: Any, call: int) -> None:
    """The environments give a reward that is not a number, once."""
    real = fakes.envs._record  # noqa: SLF001

    def record(self: Any, action: Any, reward: Any, first: Any) -> Any:
        return real(self, action, reward + (np.nan if self.calls == call else 0), first)

    monkeypatch.setattr(fakes.envs, "_record", record)


def test_a_loss_that_is_not_finite_stops_the_run_and_spoils_nothing(
    fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "100", "--logdir", "D"])
    run = Path("D")
    kept, before = newest(run), contents(newest(run))
    with monkeypatch.context() as patch:
        poison(patch, fakes, 5)
        said = fakes.refused(capsys, "train --logdir D --steps 240", code=1)
    assert "loss/reward is nan" in said and "saves nothing" in said and f"the last good checkpoint is {kept}" in said
    assert "--init-from D" in said and "steps/reward of that batch held such numbers before the update" in said
    assert newest(run) == kept and contents(kept) == before
    (folder,) = run.glob("alarm-*")
    batch = safetensors.torch.load_file(folder / "batch.safetensors")
    assert batch["steps/reward"].isnan().any() and batch["steps/image"].shape[:2] == (2, 4)
    assert {"past/stored/deter", "past/valid", "index/start", "index/stream"} <= batch.keys()
    told = json.loads((folder / "alarm.json").read_text())
    assert told["not_finite"] == {"loss/reward": "nan", "opt/moment": "nan"}
    assert told["not_finite_in_the_batch"] == ["steps/reward"]
    assert f"alarm-{told['step']}" == folder.name
    main(fakes.app, ["train", "--logdir", "D", "--steps", "240"])  # the environments are well again
    assert all(weight.isfinite().all() for weight in checkpoint.load(newest(run)).weights.values())
    rows = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert all(row["train/loss/reward"] is not None for row in rows if "train/loss/reward" in row)


def test_an_alarm_before_the_first_checkpoint_says_so(fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, fakes, 5)
    said = fakes.refused(capsys, "train --preset tiny --logdir D", code=1)
    assert "there is no checkpoint yet" in said and checkpoint.latest("D") is None


def test_weights_that_overflow_are_never_saved(fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradient were finite; the update was not."""
    real = fakes.agent.learn

    def learn(self: Any, replay: Any) -> Any:
        metrics = real(self, replay)
        with torch.no_grad():
            self.weight[1] = torch.inf
        return {"loss/reward": torch.tensor(1.0)} if metrics else metrics

    monkeypatch.setattr(fakes.agent, "learn", learn)
    said = fakes.refused(capsys, "train --preset tiny --logdir D", code=1)
    assert "weight weight is" in said and checkpoint.latest("D") is None


def test_the_first_of_several_updates_is_named_with_its_batch() -> None:
    def batch(value: float) -> Batch:
        return Batch({"reward": torch.tensor([[value]])}, None, Index(torch.zeros(1), torch.zeros(1)))

    def look(*norms: float) -> None:
        for number, norm in enumerate(norms):
            metrics = {
                "loss/a": torch.tensor(1.0),
                "opt/grad_norm": torch.tensor(norm),
                "other": torch.tensor(torch.nan),
            }
            sentinel.look(metrics, (batch(number),))

    sentinel = Sentinel()
    with pytest.raises(NotFinite, match="opt/grad_norm is inf") as caught:
        look(1.0, float("inf"), float("nan"), 1.0)
    (found,) = caught.value.batches
    assert found.steps["reward"].item() == 1
    sentinel.check()
    sentinel.look({f"loss/{name}": torch.tensor(torch.nan) for name in "abcd"}, ())
    with pytest.raises(NotFinite, match=r"a is nan, loss/b is nan, loss/c is nan and 1 more"):
        sentinel.check()


def test_looking_reads_nothing_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: Any) -> None:
        raise AssertionError("a host read")

    sentinel = Sentinel()
    for name in ("item", "tolist", "__float__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    sentinel.look({"loss/a": torch.tensor(1.0)}, None)
    with pytest.raises(AssertionError, match="host read"):
        sentinel.check()


def test_weights_are_looked_at_whatever_their_kind() -> None:
    fine = [("a", torch.ones(2)), ("b", torch.zeros(0)), ("c", torch.tensor([2**40])), ("d", torch.ones(1).half())]
    check_weights(fine)
    check_weights([])
    with pytest.raises(NotFinite, match="weight e is nan"):
        check_weights([*fine, ("e", torch.tensor([1.0, torch.nan]))])


# ---- checkpoints


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_one_flipped_byte_in_a_checkpoint(fakes: Any, capsys: Any, run: Path, name: str) -> None:
    last = newest(run)
    flip(last / name, (last / name).stat().st_size // 2)
    before = contents(run)
    said = fakes.refused(capsys, "train --logdir D --steps 240")
    assert (
        f"{last / name} is not what was saved" in said
        and "remove this folder to go on from the checkpoint before" in said
    )
    assert contents(run) == before
    shutil.rmtree(last)  # as it says
    main(fakes.app, ["train", "--logdir", "D", "--steps", "240"])
    assert checkpoint.load(newest(run)).step >= 240


def test_one_flipped_byte_in_the_replay(fakes: Any, capsys: Any, run: Path) -> None:
    path = min((run / "replay").glob("*.chunk"))
    whole = path.read_bytes()
    flip(path, 100)
    before = contents(run)
    said = fakes.refused(capsys, "train --logdir D --steps 240")
    assert f"{path} is not what was saved" in said and "--init-from" in said
    assert contents(run) == before
    path.write_bytes(whole)
    main(fakes.app, ["train", "--logdir", "D", "--steps", "240"])


def test_a_truncated_chunk(fakes: Any, capsys: Any, run: Path) -> None:
    path = sorted((run / "replay").glob("*.chunk"))[1]
    os.truncate(path, 1000)
    before = contents(run)
    said = fakes.refused(capsys, "train --logdir D --steps 240")
    assert f"{path} is cut short" in said and "put it back" in said
    assert contents(run) == before


def test_a_checkpoint_that_lost_a_part_is_passed_over_and_that_is_said(fakes: Any, capsys: Any, run: Path) -> None:
    last = newest(run)
    os.truncate(last / "state.pt", 100)
    main(fakes.app, ["train", "--logdir", "D", "--steps", "240"])
    said = capsys.readouterr().err
    assert f"{last} lacks a part and is passed over" in said and "resuming D at step 10" in said
    assert checkpoint.damaged(run) == [] and checkpoint.load(newest(run)).step >= 240
    assert (run / f"checkpoint/unread-{last.name}/state.pt").stat().st_size == 100  # kept, not overwritten


def test_where_no_checkpoint_is_whole_nothing_is_begun_anew(fakes: Any, capsys: Any, run: Path) -> None:
    for path in (run / "checkpoint").glob("[0-9]*"):
        (path / "manifest.json").unlink()
    before = contents(run)
    said = fakes.refused(capsys, "train --logdir D --steps 240")
    assert "no checkpoint in D is whole" in said and "another --logdir" in said
    assert contents(run) == before


def test_a_half_written_first_checkpoint_is_no_checkpoint(fakes: Any, run: Path) -> None:
    """Killed in the middle of the first save: the run begins anew."""
    shutil.rmtree(run / "checkpoint")
    draft = run / "checkpoint" / ".saving-100"
    draft.mkdir(parents=True)
    (draft / "model.safetensors").write_bytes(b"half")
    main(fakes.app, ["train", "--logdir", "D"])
    assert not draft.exists() and checkpoint.load(newest(run)).step >= 140


def edit(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(sealed(manifest | changes)))


def test_a_checkpoint_of_another_app(fakes: Any, capsys: Any, run: Path) -> None:
    for path in (run / "checkpoint").glob("[0-9]*"):
        edit(path, app="other")
    before = contents(run)
    assert "is a checkpoint of 'other', not of 'fakeapp': use that app" in fakes.refused(capsys, "train --logdir D")
    assert contents(run) == before


def test_a_checkpoint_of_an_older_format(fakes: Any, capsys: Any, run: Path) -> None:
    for path in (run / "checkpoint").glob("[0-9]*"):
        edit(path, format=0)
    before = contents(run)
    for line in (
        "train --logdir D --steps 240",
        "eval D",
        "dream D",
        f"train --preset tiny --init-from {path}",
        "train --preset tiny --init-from D",
    ):
        assert "has format 0, written by fakeapp 1.2.3 with wm-core" in fakes.refused(capsys, line)
    assert contents(run) == before


def test_the_newest_checkpoint_of_a_newer_format_is_not_passed_over(fakes: Any, capsys: Any, run: Path) -> None:
    """With one of ours before it, from which the run would go on and overwrite it."""
    last = newest(run)
    edit(last, format=2, meta={"version": "2.0.0"})
    before = contents(run)
    for line in ("train --logdir D --steps 240", "eval D", "dream D", "train --preset tiny --init-from D"):
        said = fakes.refused(capsys, line)
        assert f"{last} has format 2, written by fakeapp 2.0.0" in said and "go on with that version" in said
    assert contents(run) == before


def seal(path: Path) -> None:
    """Hashes as an attacker would write them."""
    sums = {n: hashlib.sha256((path / n).read_bytes()).hexdigest() for n in checkpoint.FILES}
    edit(path, files={n: {"sha256": s, "bytes": (path / n).stat().st_size} for n, s in sums.items()})


def test_a_checkpoint_of_an_older_version_that_lacks_something(fakes: Any, capsys: Any, run: Path) -> None:
    path = newest(run)
    state = torch.load(path / "state.pt", weights_only=True)
    del state["agent"]["moment"]
    torch.save(state, path / "state.pt")
    seal(path)
    edit(path, meta=json.loads((path / "manifest.json").read_text())["meta"] | {"version": "1.0.0"})
    before = contents(run)
    said = fakes.refused(capsys, "train --logdir D --steps 240")
    assert f"{path} was written by fakeapp 1.0.0 and cannot be gone on from by 1.2.3" in said
    assert f"--init-from {path}" in said and contents(run) == before


class Hostile:
    """A pickle that makes a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", checkpoint.FILES)
@pytest.mark.parametrize("command", ["train --logdir D --steps 240", "eval D", "train --preset tiny --init-from D"])
def test_a_hostile_pickle_is_never_run(fakes: Any, capsys: Any, run: Path, name: str, command: str) -> None:
    """In place of the weights and of the state, under hashes that are right."""
    path, target = newest(run), Path("owned").resolve()
    for data in (pickle.dumps(Hostile(target), protocol=2), None):
        if data is None:
            torch.save({"x": Hostile(target)}, path / name)
        else:
            (path / name).write_bytes(data)
        seal(path)
        assert "cannot be read safely" in fakes.refused(capsys, command)
        assert not target.exists()
    pickle.loads(pickle.dumps(Hostile(target)))
    assert target.exists()  # trusted, it does what it is made for


# ---- another run's weights


def test_a_run_may_begin_with_the_weights_of_another(fakes: Any, capsys: Any, run: Path) -> None:
    trained = checkpoint.load(newest(run)).weights["weight"]
    for source in ("D", str(newest(run))):
        main(
            fakes.app,
            ["train", "--preset", "tiny", "--steps", "4", "--logdir", f"N{len(source)}", "--init-from", source],
        )
        assert f"weights of {newest(run)}" in capsys.readouterr().err
        new = checkpoint.load(newest(Path(f"N{len(source)}")))
        assert torch.equal(new.weights["weight"], trained)
        assert new.step < 20 and int(new.state["agent"]["clock"]["updates"]) == 0
    main(fakes.app, ["train", "--logdir", "N1", "--steps", "100"])  # resuming asks for nothing, and takes nothing again
    assert "weights of" not in capsys.readouterr().err


def test_weights_of_another_network_are_refused(fakes: Any, capsys: Any, run: Path) -> None:
    said = fakes.refused(capsys, "train --preset tiny --width 3 --logdir N --init-from D")
    assert "'weight' is (2,) there and (3,) here" in said and "leave out the options that change the networks" in said
    assert "there is no checkpoint in nowhere" in fakes.refused(capsys, "train --preset tiny --init-from nowhere")


# ---- disk and memory


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Callable[[], None]:
    """Somebody else takes all that is left."""

    def write() -> None:
        with (folder / "ballast").open("wb") as file:
            try:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            except OSError:
                return

    return write


@pytest.mark.parametrize("call", [1, 6, 10, 15])
def test_a_disk_that_fills_up_during_the_run(fakes: Any, capsys: Any, small_disk: Path, call: int) -> None:
    """Whatever meets it first: a log, a chunk, the journal, a checkpoint."""
    options = ["--preset", "tiny", "--chunk", "8", "--replay-bytes", "1000000"]
    main(fakes.app, ["train", *options, "--steps", "100", "--logdir", str(small_disk / "D")])
    main(fakes.app, ["train", *options, "--logdir", "whole"])
    run = small_disk / "D"
    kept = newest(run)
    before = contents(kept)
    fakes.envs.events[call] = fill(small_disk)
    said = fakes.refused(capsys, f"train --logdir {run} --steps 240")
    assert "free some" in said or "disk is full" in said
    assert contents(kept) == before
    fakes.envs.events.clear()
    (small_disk / "ballast").unlink()
    main(fakes.app, ["train", "--logdir", str(run), "--steps", "240"])
    one, other = (checkpoint.load(newest(path)) for path in (run, Path("whole")))
    assert torch.equal(one.weights["weight"], other.weights["weight"])
    assert one.state["replay"]["sums"].tolist() == other.state["replay"]["sums"].tolist()


def test_a_disk_that_is_too_small_is_told_before_the_first_step(fakes: Any, capsys: Any, small_disk: Path) -> None:
    logdir = small_disk / "D"
    said = fakes.refused(capsys, f"train --preset tiny --steps 100000 --logdir {logdir}")
    for word in ("GB of disk", "GB of replay", "GB of checkpoints", "GB are free", "lower --replay-bytes"):
        assert word in said
    assert not list(logdir.glob("replay/*.chunk"))
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", str(logdir), "--replay-bytes", "500000", "--chunk", "8"])


def test_the_estimate_of_the_disk_holds(fakes: Any, run: Path) -> None:
    """What a run has on disk at its end is no more than what was asked for, and not far from it."""
    held = sum(path.stat().st_size for path in (run / "replay").glob("*.chunk"))
    state = checkpoint.load(newest(run)).state["replay"]
    replay = Replay(run / "replay", 2, stores={}, limit_bytes=10**9, chunk=8, length=4)
    replay.load_state(state)
    found, _ = preflight.disk_bytes(
        step_bytes=replay.step_bytes,
        noted_bytes=4,
        actions=140 // 4,
        envs=2,
        chunk=8,
        replay_bytes=10**9,
        checkpoint_bytes=0,
        checkpoints=0,
    )
    assert held * 0.8 < found < held * 1.6

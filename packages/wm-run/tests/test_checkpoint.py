"""A checkpoint comes back exact, whole, or not at all, and reading one runs nobody's code."""

from __future__ import annotations

import json
import operator
import os
import pickle
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wm_run import checkpoint
from wm_run.checkpoint import CheckpointError, latest, load, save
from wm_run.manifest import OtherFormat, sealed

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(3, dtype=torch.bfloat16)}


def put(logdir: Path, step: int, **options: Any) -> Path:
    state = {"clock": step, "rng": np.arange(step % 7)}
    return save(logdir, step, weights=WEIGHTS, state=state, meta={"app": "toy", "note": step}, **options)


def same(one: Any, two: Any) -> bool:
    """Equal in type, dtype, shape and value, all the way down."""
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[k], two[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and one.shape == two.shape and bool(torch.equal(one, two))
    if isinstance(one, (np.ndarray, np.generic)):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    return repr(one) == repr(two)  # nan equals nan here


STATE: dict[Any, Any] = {
    "none": None,
    "flags": [True, False],
    "numbers": [0, -1, 2**127, 0.1, float("inf"), float("nan"), -0.0],
    "text": ["", "Δt\n\0"],
    "tuple": (1, (2.0, "three"), []),
    "empty": {"dict": {}, "list": [], "array": np.zeros((0, 3), np.int16)},
    3: {"exp_avg": torch.randn(3, 2), 0: torch.tensor(4, dtype=torch.int64)},
    "arrays": [
        np.ones(2, t)
        for t in ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16", ">f4"]
    ],
    "scalars": [np.float32(0.1), np.int64(-5), np.bool_(True), np.float64(2.5), np.str_("no")],
    "0-d": [np.array(3.5), np.array(7, np.uint8), torch.tensor(1.5)],
    "words": np.array(["one", "three"]),
    "strided": np.arange(24).reshape(4, 6)[::2, ::3],
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "frozen": np.broadcast_to(np.float32(1), (2, 2)),
    "bf16": torch.ones(2, dtype=torch.bfloat16),
}


def test_state_comes_back_exact(tmp_path: Path) -> None:
    found = load(save(tmp_path, 5, weights=WEIGHTS, state=STATE, meta={"app": "toy", "x": [1, None]}))
    assert same(found.state, STATE)
    assert same(dict(sorted(found.weights.items())), dict(sorted(WEIGHTS.items())))
    assert found.meta == {"app": "toy", "x": [1, None]} and found.step == 5
    assert found.state["strided"].flags.writeable


def test_the_comparison_used_here_can_fail() -> None:
    assert not same({"a": np.float32(1)}, {"a": 1.0}) and not same([np.ones(1)], [torch.ones(1)])
    assert not same(np.ones(1, "f4"), np.ones(1, ">f4")) and not same((1,), [1])


def test_state_loads_with_weights_only_and_is_small(tmp_path: Path) -> None:
    big = torch.zeros(10**6)
    path = save(
        tmp_path, 1, weights={"w": big[:3]}, state={"view": big[:2], "parameter": torch.nn.Linear(1, 1).weight}, meta={}
    )
    assert torch.load(path / "state.pt", weights_only=True)["view"].shape == (2,)
    assert sum(f.stat().st_size for f in path.iterdir()) < 20_000
    assert type(load(path).state["parameter"]) is torch.Tensor


def test_tied_and_strided_weights_come_back(tmp_path: Path) -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    weights = {
        "one": weight,
        "two": weight,
        "part": weight[1:],
        "turned": weight.T,
        "scalar": torch.tensor(2.0),
        "none": weight[:0],
    }
    found = load(save(tmp_path, 1, weights=weights, state={}, meta={})).weights
    assert all(torch.equal(found[name], value) for name, value in weights.items()) and found.keys() == weights.keys()


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"env": [{"ale": object()}]}, r"state\['env'\]\[0\]\['ale'\]: object is not"),
        ({"a": np.array([None])}, "numpy object"),
        ({"a": b"raw"}, "bytes is not"),
        ({"a": {1.5: 0}}, "key 1.5"),
        ({"a": {"__numpy__": 0}}, "reserved"),
        ({"a": {1, 2}}, "set is not"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path: Path, state: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        save(tmp_path, 1, weights={}, state=state, meta={})
    assert latest(tmp_path) is None


def test_meta_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must be JSON"):
        save(tmp_path, 1, weights={}, state={}, meta={"x": np.float32(1)})


def test_the_last_are_kept_and_the_rest_pruned(tmp_path: Path) -> None:
    for step in (5, 20, 100, 1000):
        assert latest(tmp_path) != put(tmp_path, step)
        assert (tmp_path / "checkpoint" / "latest").read_text() == f"{step}\n"
    assert {p.name for p in (tmp_path / "checkpoint").iterdir()} == {"100", "1000", "latest"}
    put(tmp_path, 1001, keep=1)
    assert {p.name for p in (tmp_path / "checkpoint").iterdir()} == {"1001", "latest"}


def test_milestones_stay_for_ever(tmp_path: Path) -> None:
    """The first checkpoint at or after each multiple; a resumed run counts on from what is there."""
    for step in (40, 90, 110, 150, 210, 230, 290, 420, 430, 440):
        put(tmp_path, step, milestone_every=100)
    root = tmp_path / "checkpoint"
    assert {p.name for p in root.iterdir()} == {"110", "210", "420", "430", "440", "latest"}
    put(tmp_path, 450, milestone_every=0, keep=1)
    assert {p.name for p in root.iterdir()} == {"110", "210", "420", "450", "latest"}
    put(tmp_path, 300)  # gone back to before 420: what came later belongs to a future that was cut off
    assert {p.name for p in root.iterdir()} == {"110", "210", "300", "latest"}


def test_what_once_was_whole_is_told_from_what_was_being_written(tmp_path: Path) -> None:
    paths = [put(tmp_path, step, keep=9) for step in (10, 20, 30)]
    (tmp_path / "checkpoint" / ".saving-40").mkdir()
    assert checkpoint.damaged(tmp_path) == []
    os.truncate(paths[0] / "state.pt", 10)
    (paths[2] / "manifest.json").unlink()
    assert checkpoint.damaged(tmp_path) == [paths[2], paths[0]]


def test_a_damaged_one_takes_no_place_among_the_kept_and_is_not_deleted(tmp_path: Path) -> None:
    put(tmp_path, 10)
    os.truncate(put(tmp_path, 20) / "state.pt", 10)
    put(tmp_path, 30)
    assert {p.name for p in (tmp_path / "checkpoint").iterdir()} == {"10", "unread-20", "30", "latest"}
    assert (tmp_path / "checkpoint/unread-20/model.safetensors").stat().st_size
    assert checkpoint.damaged(tmp_path) == []


def test_a_damaged_one_is_not_overwritten_at_its_own_step(tmp_path: Path) -> None:
    for k in range(2):
        put(tmp_path, 10)
        os.truncate(put(tmp_path, 20) / "state.pt", 10 + k)
        assert checkpoint.passed_over(tmp_path / "checkpoint" / "10") == [tmp_path / "checkpoint" / "20"]
    assert latest(tmp_path) == tmp_path / "checkpoint" / "10"
    put(tmp_path, 15)
    path = put(tmp_path, 20)
    assert load(path).step == 20 and checkpoint.passed_over(path) == []
    sizes = [(tmp_path / f"checkpoint/unread-20{k}" / "state.pt").stat().st_size for k in ("", "-1")]
    assert sizes == [10, 11]


@pytest.mark.parametrize("keep", [1, 2])
def test_one_of_another_format_is_neither_passed_over_nor_deleted(tmp_path: Path, keep: int) -> None:
    put(tmp_path, 10)
    path = put(tmp_path, 20, keep=9)
    edit(path, format=checkpoint.FORMAT + 1, wm_core="9.1", files={}, meta={"version": "0.7.2"})
    said = rf"{path} has format 2, written by toy 0.7.2 with wm-core 9.1, and this wm-core reads format 1: go on with"
    for pointer in ("20", "10", "nothing"):
        (tmp_path / "checkpoint/latest").write_text(pointer)
        for ask in (latest, lambda logdir: checkpoint.agreed([logdir, logdir])):
            with pytest.raises(OtherFormat, match=said):
                ask(tmp_path)
    assert checkpoint.damaged(tmp_path) == []
    put(tmp_path, 15, keep=keep)  # whoever does not ask
    assert path.is_dir()
    put(tmp_path, 20, keep=keep)
    put(tmp_path, 30, keep=keep)
    assert json.loads((tmp_path / "checkpoint/unread-20/manifest.json").read_text())["wm_core"] == "9.1"
    assert latest(tmp_path) == tmp_path / "checkpoint" / "30"


def test_one_of_an_earlier_step_and_another_format_is_nobodys_concern(tmp_path: Path) -> None:
    edit(put(tmp_path, 10), format=checkpoint.FORMAT - 1)
    assert latest(tmp_path / "nowhere") is None
    path = put(tmp_path, 20)
    assert latest(tmp_path) == path and (tmp_path / "checkpoint" / "10").is_dir()


@pytest.mark.parametrize("field", ["step", "meta", "milestone", "wm_core"])
def test_a_manifest_that_was_changed_is_noticed(tmp_path: Path, field: str) -> None:
    path = put(tmp_path, 120)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {field: 920}))
    if field == "meta":
        (path / "manifest.json").write_text(json.dumps(manifest | {field: {"app": "toy", "note": 121}}))
    refused(path, "manifest.json is not what was saved")


def test_a_step_that_was_changed_is_noticed_where_there_is_no_seal(tmp_path: Path) -> None:
    """As of commit 2028e95."""
    path = put(tmp_path, 120)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["seal"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert load(path).step == 120
    (path / "manifest.json").write_text(json.dumps(manifest | {"step": 920}))
    refused(path, "says step 920, and its folder 120")


def test_what_is_removed_is_never_seen_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of removing: what is left is no damaged checkpoint, and the next save takes it away."""
    put(tmp_path, 10)

    def half(path: Path, **options: Any) -> None:
        if path.exists():
            min(path.iterdir()).unlink()
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(Killed):
            put(tmp_path, 20, keep=1)
    assert checkpoint.damaged(tmp_path) == [] and latest(tmp_path) == tmp_path / "checkpoint" / "20"
    put(tmp_path, 30, keep=1)
    assert {p.name for p in (tmp_path / "checkpoint").iterdir()} == {"30", "latest"}


def test_a_checkpoint_of_a_cut_off_future_goes(tmp_path: Path) -> None:
    put(tmp_path, 10)
    put(tmp_path, 20)
    shutil.rmtree(tmp_path / "checkpoint" / "20")  # as the error of a damaged one advises
    put(tmp_path, 30)
    (tmp_path / "checkpoint" / "latest").write_text("10\n")
    path = put(tmp_path, 15)
    assert latest(tmp_path) == path
    assert {p.name for p in (tmp_path / "checkpoint").iterdir()} == {"10", "15", "latest"}


def test_processes_go_on_from_the_newest_step_that_all_have(tmp_path: Path) -> None:
    """One was killed before it saved; what the others saved then belongs to nobody."""
    folders = [tmp_path, tmp_path / "rank-1"]
    assert checkpoint.agreed(folders) is None
    for folder, steps in zip(folders, ((10, 20), (10,)), strict=True):
        for step in steps:
            save(folder, step, weights=WEIGHTS, state={}, meta={})
    found = [checkpoint.agreed([one, *folders]) for one in folders]
    assert found == [folder / "checkpoint" / "10" for folder in folders]
    for path in found:
        checkpoint.go_back(path)
    assert latest(tmp_path) == found[0] and not (tmp_path / "checkpoint" / "20").exists()
    assert latest(folders[1]) == found[1]


def test_a_checkpoint_that_is_not_whole_in_one_process_is_in_none(tmp_path: Path) -> None:
    folders = [tmp_path, tmp_path / "rank-1"]
    paths = [save(folder, step, weights=WEIGHTS, state={}, meta={}) for folder in folders for step in (10, 20)]
    (paths[3] / "state.pt").write_bytes(b"")
    assert checkpoint.agreed(folders) == paths[0]
    shutil.rmtree(folders[1])
    with pytest.raises(
        CheckpointError, match=r"no checkpoint of one step \(.*rank-1 lacks the others'\): put the missing"
    ):
        checkpoint.agreed(folders)


def test_saving_twice_at_one_step_keeps_the_second(tmp_path: Path) -> None:
    put(tmp_path, 10)
    save(tmp_path, 10, weights={}, state={"second": 1}, meta={})
    found = latest(tmp_path)
    assert found is not None and load(found).state == {"second": 1}
    assert {p.name for p in (tmp_path / "checkpoint").iterdir()} == {"10", "latest"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


STAGES = ["_weights_file", "_state_file", "_manifest_file", "durable.sync", "_point", "_prune"]


@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_a_whole_checkpoint_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, when: str, again: bool
) -> None:
    put(tmp_path, 10)
    step = 10 if again else 20
    real = operator.attrgetter(stage)(checkpoint)

    def killed(*args: Any) -> None:
        if when == "after":
            real(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"wm_run.checkpoint.{stage}", killed)
        with pytest.raises(Killed):
            put(tmp_path, step)
    found = latest(tmp_path)
    assert found is not None
    assert load(found, app="toy").state["clock"] in (10, step)
    assert latest(tmp_path) == found
    path = put(tmp_path, 30)  # and the run goes on
    assert latest(tmp_path) == path
    assert not [p for p in (tmp_path / "checkpoint").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("call", range(4))
def test_killed_at_any_rename_a_whole_checkpoint_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    put(tmp_path, 10)
    calls = iter(range(100))

    def wrap(real: Any) -> Any:
        def step(*args: Any) -> Any:
            if next(calls) == call:
                raise Killed
            return real(*args)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", wrap(Path.rename))
        patch.setattr(Path, "replace", wrap(Path.replace))
        try:
            put(tmp_path, 10)
        except Killed:
            pass
    found = latest(tmp_path)
    assert found is not None and load(found).state["clock"] == 10


def test_a_process_killed_while_saving_leaves_the_one_before(tmp_path: Path) -> None:
    """With a real SIGKILL, in the middle of state.pt."""
    put(tmp_path, 10)
    child = os.fork()
    if child == 0:  # nothing of pytest runs here: the process dies in the write

        def cut(path: Path, state: Any) -> None:
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

        checkpoint._state_file = cut  # noqa: SLF001
        put(tmp_path, 20)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "checkpoint" / ".saving-20").is_dir()
    found = latest(tmp_path)
    assert found is not None and found.name == "10" and load(found).state["clock"] == 10


def test_latest_passes_over_incomplete_ones(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    put(tmp_path, 10)
    newest = put(tmp_path, 20)
    os.truncate(newest / "state.pt", 10)
    assert latest(tmp_path) == tmp_path / "checkpoint" / "10"
    (tmp_path / "checkpoint" / "latest").unlink()
    assert latest(tmp_path) == tmp_path / "checkpoint" / "10"
    (tmp_path / "checkpoint" / "latest").write_text("../../elsewhere")
    assert latest(tmp_path) == tmp_path / "checkpoint" / "10"
    (tmp_path / "checkpoint" / "10" / "manifest.json").write_text("{")
    assert latest(tmp_path) is None


def edit(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(sealed(manifest | changes)))


def refused(path: Path, says: str, **options: Any) -> None:
    with pytest.raises(CheckpointError, match=says) as error:
        load(path, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pointer", [b"\xff\xfe\x00", b"", b"../toy", b"x" * 5000, b"1\x000"])
def test_a_pointer_that_names_nothing_is_passed_over(tmp_path: Path, pointer: bytes) -> None:
    path = put(tmp_path, 10)
    (tmp_path / "checkpoint/latest").write_bytes(pointer)
    assert latest(tmp_path) == path


def test_damage_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for name in ("model.safetensors", "state.pt"):
        path = put(tmp_path, 10)
        data = bytearray((path / name).read_bytes())
        data[len(data) // 2] ^= 1
        (path / name).write_bytes(data)
        refused(path, "sha256 differs.*remove this folder")
        (path / name).unlink()
        refused(path, f"{name} is missing.*remove this folder")
        shutil.rmtree(path)
    path = put(tmp_path, 10)
    for text in ("", "[]", "{}", '{"format": 1, "step": 1, "app": "", "meta": {}, "files": {}}', '{"format": "x"}'):
        (path / "manifest.json").write_text(text)
        refused(path, "not a checkpoint's manifest")
    (path / "manifest.json").unlink()
    refused(path, "manifest.json is missing")
    refused(tmp_path / "nowhere", "no checkpoint in")
    refused(tmp_path, "name one of the folders")


def test_another_app_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, 10)
    assert load(path, app="toy").meta["note"] == 10
    refused(path, "of 'toy', not of 'dreamer'", app="dreamer")
    refused(save(tmp_path, 20, weights={}, state={}, meta={}), "not of 'toy'", app="toy")


@pytest.mark.parametrize(("by", "age"), [(1, "a newer"), (-1, "an older")])
def test_another_format_is_refused(tmp_path: Path, by: int, age: str) -> None:
    path = put(tmp_path, 10)
    edit(path, format=checkpoint.FORMAT + by, files={}, wm_core="")
    refused(path, f"written by {age} wm-core, and this wm-core reads format 1: go on with that version")


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def seal(path: Path) -> None:
    """Hashes as an attacker would write them."""
    import hashlib

    files = {
        n: {"sha256": hashlib.sha256((path / n).read_bytes()).hexdigest(), "bytes": (path / n).stat().st_size}
        for n in checkpoint.FILES
    }
    edit(path, files=files)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path, target = put(tmp_path, 10), tmp_path / "owned"
    for data in ("zip", "raw"):
        if data == "zip":
            torch.save({"x": Hostile(target)}, path / "state.pt")
        else:
            (path / "state.pt").write_bytes(pickle.dumps(Hostile(target), protocol=2))
        seal(path)
        refused(path, "cannot be read safely")
        assert not target.exists()
    pickle.loads((path / "state.pt").read_bytes())
    assert target.exists()  # the same bytes do harm where they are trusted


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_nonsense_with_right_hashes_is_refused(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, 10)
    for data in (b"", b"\xff" * 100, b"PK\x03\x04 not a zip"):
        (path / name).write_bytes(data)
        seal(path)
        refused(path, "cannot be read safely")
    torch.save(
        {"x": {"__numpy__": "array", "dtype": "O", "shape": [1], "raw": torch.zeros(8, dtype=torch.uint8)}},
        path / "state.pt",
    )
    seal(path)
    refused(path, "cannot be read safely")


@pytest.mark.parametrize("size", [100, 3000, 60_000])
def test_a_full_disk_is_said_and_older_checkpoints_stay(tmp_path: Path, size: int) -> None:
    """Files may not grow beyond `size` bytes: the weights fail, or the state."""
    put(tmp_path, 10)
    weights = {"w": torch.zeros(500)}
    state = {"x": np.zeros(10**5)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(CheckpointError, match="free some disk space"):
            save(tmp_path, 20, weights=weights, state=state, meta={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name for p in (tmp_path / "checkpoint").iterdir()} == {"10", "latest"}
    found = latest(tmp_path)
    assert found is not None and load(found).state["clock"] == 10

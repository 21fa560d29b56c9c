"""Too little memory, or replay, for a run: one sentence before anything is built, and nothing is left behind."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from wm_core import draws
from wm_core.errors import UserError
from wm_run import allotted, gpu_memory
from wm_run.allotted import Allotted, Exceeded, built
from wm_run.cli import main
from wm_run.memory import Free, free_memory

pytestmark = pytest.mark.usefixtures("quiet")


class Net(nn.Module):
    """Weights of several kinds, a moment of each, and a generator."""

    def __init__(self, width: int, device: str) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.Embedding(width, width))
        self.mask = torch.ones(width, width).tril()
        self.inner.register_buffer("eye", torch.eye(width))
        self.to(device)
        self.moments = [torch.zeros_like(one) for one in self.parameters()]
        self.source = draws.Generator(0, device)

    def state(self) -> dict[str, Any]:
        return {"moments": self.moments}


def make(width: int, tried: list[str]) -> Any:
    def of(device: str) -> Net:
        torch.manual_seed(3)
        tried.append(device)
        return Net(width, device)

    return of


def test_networks_that_do_not_fit_are_told_from_their_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 wide, two matrices of weights and one that is none: 2 * 12 MB with gradients, and 8 MB of moments."""
    monkeypatch.setattr(allotted, "free_memory", lambda: Free(24_000_000))
    tried: list[str] = []
    with pytest.raises(
        UserError, match=r"at least 0\.03 GB more of memory for its networks and 0\.02 GB are free: choose"
    ):
        built(make(1000, tried), "cpu")
    assert tried == ["cpu", "meta"]
    monkeypatch.setattr(allotted, "free_memory", lambda: Free(64_000_000))
    built(make(1000, tried), "cpu")
    assert tried == ["cpu", "meta"] + ["cpu", "meta", "cpu"]


@pytest.mark.parametrize("here", [10**12, None])
def test_networks_that_do_not_fit_on_a_card_are_told_before_they_are_there(
    monkeypatch: pytest.MonkeyPatch, here: int | None
) -> None:
    """What has shapes alone stands in for the card. Weights and buffers take 12 MB, gradients as much, moments 8."""
    monkeypatch.setattr(allotted, "free_memory", lambda: None if here is None else Free(here))
    for free, fits in ((24_000_000, False), (64_000_000, True)):
        monkeypatch.setattr(allotted, "free_on", lambda device, free=free: Free(free, of="the GPU's memory"))
        if fits:
            assert next(built(make(1000, []), "meta").parameters()).is_meta
        else:
            with pytest.raises(
                UserError, match=r"0\.03 GB more of the GPU's memory for its networks and 0\.02 GB are free: choose"
            ):
                built(make(1000, []), "meta")


def test_weights_for_a_card_have_to_pass_through_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allotted, "free_memory", lambda: Free(10_000_000))
    monkeypatch.setattr(allotted, "free_on", lambda device: Free(40_000_000, of="the GPU's memory"))
    with pytest.raises(UserError, match=r"0\.01 GB more of memory for its networks and 0\.01 GB are free: choose"):
        built(make(1000, []), "meta")


def test_a_card_with_room_is_asked_for_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allotted, "free_on", lambda device: Free(80 * 10**9, of="the GPU's memory"))
    tried: list[str] = []
    built(make(1000, tried), "meta")
    assert len(tried) == 1


@pytest.mark.parametrize("width", [10**6, 10**9, 2**62])
def test_nothing_of_networks_without_end_is_made(width: int) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="more of memory for its networks"):
        built(make(width, []), "cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 2**20  # kB; the compiler that torch imports


def test_networks_that_are_watched_are_those_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make(50, [])("cpu").state_dict()
    for free in (10**12, 100_000):  # made once; made once more after it was told what they take
        monkeypatch.setattr(allotted, "free_memory", lambda free=free: Free(free))
        watched = built(make(50, []), "cpu").state_dict()
        assert all(torch.equal(watched[name], value) for name, value in plain.items())


def test_networks_that_look_at_values_are_stopped_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(device: str) -> Any:
        assert float(torch.ones(1)) == 1.0, "of shapes there is no value"
        return [torch.zeros(1000) for _ in range(1000)]

    monkeypatch.setattr(allotted, "free_memory", lambda: Free(1_000_000))
    with pytest.raises(UserError, match=r"at least 0\.00 GB more"):
        built(of, "cpu")
    monkeypatch.setattr(allotted, "free_memory", lambda: Free(5_000_000))
    assert len(built(of, "cpu")) == 1000  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make, asked",
    [
        (lambda: torch.empty(10), 40),
        (lambda: torch.zeros(2, 5, dtype=torch.float64), 80),
        (lambda: torch.rand(10) + 0, 40),
        (lambda: torch.eye(10), 400),
        (lambda: torch.full((10,), 1, dtype=torch.int8), 10),
        (lambda: torch.ones(10).expand(1000, 10).view(1000, 2, 5).detach(), 40),
        (lambda: torch.ones(10).clone(), 80),
        (lambda: torch.zeros_like(torch.ones(10), dtype=torch.int8), 50),
        (lambda: torch.ones(10).double(), 120),
        (lambda: torch.ones(10).new_zeros(3), 52),
    ],
)
def test_what_is_counted(make: Any, asked: int) -> None:
    """In this machine's memory: what lies on a card, or nowhere, is none of it."""
    with Allotted(10**6) as counted:
        make()
    assert counted.asked == asked
    with pytest.raises(Exceeded), Allotted(asked - 1):
        make()
    with Allotted(0), torch.device("meta"):
        make()
        torch.empty_like(torch.empty(10))


def test_a_fault_of_an_apps_own_is_no_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(device: str) -> Any:
        if device == "meta":
            raise KeyError("a fault of its own")
        return [torch.zeros(1000) for _ in range(1000)]

    monkeypatch.setattr(allotted, "free_memory", lambda: Free(5_000_000))
    with pytest.raises(KeyError, match="of its own"):
        built(of, "cpu")


def test_numbers_beyond_a_word_are_a_sentence(fakes: Any, capsys: Any) -> None:
    def build(config: Any, *spaces: Any) -> Any:
        return torch.zeros(config.width * 2**40)

    fakes.app = dataclasses.replace(fakes.app, build=build)
    said = fakes.refused(capsys, f"train --preset tiny --logdir D --width {2**50}")
    assert "make networks that no memory can hold: choose smaller networks" in said and not Path("D").exists()


@pytest.mark.parametrize("name", ["width", "batch", "steps"])
def test_no_number_is_larger_than_what_every_library_counts_with(fakes: Any, capsys: Any, name: str) -> None:
    for value in (2**53 + 1, 2**63, 10**40):
        said = fakes.refused(capsys, f"train --preset tiny --logdir D --{name} {value}")
        assert said == f"fakeapp: {name} must be at most 9,007,199,254,740,992, not {value}"
        assert not Path("D").exists()


def test_batches_that_do_not_fit_are_told_before_the_first_step(
    fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wm_run.session.free_memory", lambda: Free(1000, "ulimit -v"))
    said = fakes.refused(capsys, "train --preset tiny --logdir D/E")
    assert "0.00 GB are free under ulimit -v: lower --batch, --length or --size, or raise that limit" in said
    assert not Path("D").exists()


def test_batches_that_do_not_fit_on_a_card_are_told_before_the_first_step(
    fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wm_run.session.free_on", lambda device: Free(1000, of="the GPU's memory"))
    said = fakes.refused(capsys, "train --preset tiny --logdir D/E")
    assert "GB more of the GPU's memory (gradients and batches) and 0.00 GB are free: lower --batch" in said
    assert not Path("D").exists()


def test_what_a_card_has_left_is_what_torch_keeps_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"mem_get_info": (1000, 9000), "memory_reserved": 500, "memory_allocated": 200}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    assert gpu_memory.free_on("cuda") == Free(1300, of="the GPU's memory") and gpu_memory.free_on("cpu") is None


def test_environments_that_do_not_fit_are_not_made(fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "D", "--steps", "40"])
    made: list[int] = []
    monkeypatch.setattr(fakes.envs, "__init__", lambda self, n: made.append(n))
    said = fakes.refused(
        capsys, f"train --preset tiny --logdir E --envs {10**9} --chunk 1 --length 2 --replay-bytes {10**15}"
    )
    assert "for 1,000,000,000 environments and" in said and "take fewer (--envs)" in said
    said = fakes.refused(capsys, f"train --preset tiny --logdir E --envs {10**9}")
    assert "replay limit of 9.5 MB is too small" in said and "(--envs)" in said
    assert made == [] and not Path("E").exists()


def test_a_replay_without_room_leaves_nothing_behind(fakes: Any, capsys: Any) -> None:
    said = fakes.refused(capsys, "train --preset tiny --logdir D --envs 200")
    assert "raise the limit (--replay-bytes), shorten the chunks (--chunk)" in said and not Path("D").exists()
    shorter = "train --preset tiny --logdir D --envs 200 --chunk 4 --steps 3200"  # that is the way out
    main(fakes.app, shorter.split())


def test_a_folder_that_was_there_is_left_as_it_was(fakes: Any, capsys: Any) -> None:
    Path("D").mkdir()
    fakes.refused(capsys, "train --preset tiny --logdir D --envs 200")
    assert Path("D").is_dir() and not Path("D/config.toml").exists()
    Path("E").mkdir()
    Path("E/notes.txt").write_text("mine")
    fakes.refused(capsys, "train --preset tiny --logdir E/F --envs 200")
    assert [path.name for path in Path("E").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 11.2 TiB for an array with shape (12327000000000,) and data type uint8"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_memory_that_ends_all_the_same_is_one_sentence(fakes: Any, capsys: Any, error: Exception) -> None:
    def run_out() -> None:
        raise error

    fakes.envs.events[3] = run_out
    said = fakes.refused(capsys, "train --preset tiny --logdir D")
    assert "there is too little memory (" in said and "raise a limit" in said


def test_a_video_that_memory_has_no_room_for_ends_no_run(
    fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(session: Any, step: int) -> Any:
        raise ImportError("libvpx-edb6de90.so.12.0.0: failed to map segment from shared object")

    monkeypatch.setattr("wm_run.dreams.videos", no_room)
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "D"])
    assert "no video at the end: there is too little memory (libvpx" in capsys.readouterr().err


# ---- what is free


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (resource.RLIM_INFINITY, 0))
    _write(tmp_path / "proc", meminfo="MemTotal: 9 kB\nMemAvailable:    5000 kB\n")
    return tmp_path / "proc"


V2 = {"memory__current": "700000", "memory__stat": "anon 5\ninactive_file 100\nactive_file 23\n"}
V1 = {"memory__usage_in_bytes": "700000", "memory__stat": "cache 5\ntotal_inactive_file 100\ntotal_active_file 23\n"}


def test_where_nothing_is_told_nothing_is_known(tmp_path: Path) -> None:
    assert free_memory(tmp_path / "none", tmp_path) is None


def test_free_is_the_least_that_machine_and_group_leave(proc: Path, tmp_path: Path) -> None:
    assert free_memory(proc, tmp_path) == Free(5000 * 1024)
    _write(tmp_path, memory__max="max\n", **V2)
    assert free_memory(proc, tmp_path) == Free(5000 * 1024)
    _write(tmp_path, memory__max="1000000\n")
    assert free_memory(proc, tmp_path) == Free(300_123, "its control group")


@pytest.mark.parametrize(
    "line, folder, files",
    [
        ("0::/job/step", "job/step", V2 | {"memory__max": "1000000"}),
        ("0::/job/step", "job", V2 | {"memory__max": "1000000"}),
        ("3:cpu:/\n7:hugetlb,memory:/job/step", "memory/job", V1 | {"memory__limit_in_bytes": "1000000"}),
        ("7:memory:/docker/of/the/host", "memory", V1 | {"memory__limit_in_bytes": "1000000"}),
    ],
)
def test_groups_around_this_process_count(
    proc: Path, tmp_path: Path, line: str, folder: str, files: dict[str, str]
) -> None:
    groups = tmp_path / "groups"
    _write(proc / "self", cgroup=f"{line}\n")
    _write(groups / folder, **files)
    assert free_memory(proc, groups) == Free(300_123, "its control group")


def test_a_limit_of_addresses_counts(proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(proc / "self", statm="100 50 20 1 0 60 0\n")
    page = resource.getpagesize()
    limits = {resource.RLIMIT_AS: 130 * page, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (limits[limit], 0))
    assert free_memory(proc, tmp_path) == Free(30 * page, "ulimit -v")
    limits[resource.RLIMIT_DATA] = 61 * page
    assert free_memory(proc, tmp_path) == Free(page, "ulimit -d")


@pytest.mark.skipif(sys.platform != "linux", reason="where limits of addresses are kept")
def test_what_is_said_to_be_free_under_a_limit_can_be_had() -> None:
    program = """if True:
        import resource, mmap
        from wm_run.memory import free_memory
        limit = 2 * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        free = free_memory()
        assert free.by == "ulimit -v", free
        held = mmap.mmap(-1, free.bytes - 2**20)
        try:
            mmap.mmap(-1, 2**22)
        except OSError:
            print("as said")"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == "as said\n", done.stderr

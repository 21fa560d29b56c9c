"""Does a run that was stopped or killed go on as if nothing had happened? Tried on an app, in processes of its own.

resume_check.py --app dreamer --preset tiny --task toy:doors --steps 200            stopped at step 100
resume_check.py --app dreamer --preset tiny --task atari100k_boxing --steps 400 --stop 150
resume_check.py --app dreamer --preset tiny --task toy:catch --kill 6 --seed 1 --chunk 16 --replay-bytes 300000

Stopping: `--steps 200` at once is compared with `--steps 100` and then `--steps 200` in the same folder, bit for bit:
weights, optimiser, generators, environments, replay, and every row of metrics.jsonl and scores.jsonl but speed and
memory (`fps/`, `usage/`). Exit code 1 and the first differences of each part where there are any.

Killing: SIGKILL N times, always in a new process that goes on from the last, and then on to the end; the result is
compared with the unbroken run in the same way. By turns, each time at a random place that lasts for N kills:

    time       after some CPU time of training
    file       before an operation on a file of the run folder, reading and going back included
    save       before a line of Python inside saving: logs, replay, checkpoint, pruning, commit
    checkpoint before a line inside writing the checkpoint alone
    annotate   before a line inside writing back to the replay: undo journal, then the chunks
    evict      before a line inside giving up a chunk of the replay or beginning one
    log        before a line inside writing a row of a log
    load       before a line inside going back to a checkpoint
    raise      right after `--steps` was raised and written into config.toml, before a line inside writing what follows it

After each kill the last complete checkpoint is read and checked, and the next process must go on at its step. A place
that the unbroken run never comes to is left out, and the tool says so: a replay that is never full evicts nothing.

--waiting draws one batch ahead and writes notes back one update late, as beside a GPU, for which a thread that waits stands
in (tools/waiting.py): what is under way then belongs to what must not be lost.

--app --steps --stop --kill --at --seed --keep --waiting are the tool's own; every other option goes to the app's `train`. Kills
need checkpoints to go on from: choose --steps as several times the --save-every of the preset.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.errors import UserError
from wm_run import checkpoint
from wm_run.loop import PRIVATE
from wm_run.replay import Replay

LOGS = ("metrics.jsonl", "scores.jsonl")
BEGUN = "run folder"  # what `train` says when everything is made or loaded, before the first step
PLACES = ("time", "file", "save", "checkpoint", "annotate", "evict", "log", "load", "raise")
# The app with SIGKILL before the chosen operation on a file of the run folder (of those that Python opens; the weights
# are written by safetensors, which is not seen), or before the chosen line of wm_run's inside certain functions.
# The process that imports everything, once; every training process is a fork of it that has done nothing else yet.
CHILD = """
import importlib, json, os, signal, sys, traceback
app = sys.argv[1]
if len(sys.argv) > 2:
    sys.path.insert(0, sys.argv[2])
    import waiting
    waiting.install()
main = importlib.import_module(app + ".cli").main
for module in (app + ".agent", app + ".environments", "wm_run.commands", "tyro", "rich.progress"):
    importlib.import_module(module)
from wm_run.replay import Replay
from wm_run import checkpoint
from wm_run.folder import Run
from wm_run.session import Session
seen = {}
def count(kind, what):
    seen[kind] = seen.get(kind, 0) + 1
    if kind == place and seen[kind] == fatal:
        os.write(2, f"KILLED before {what}\\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
OURS = os.sep + "wm_run" + os.sep
KINDS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}
def watch(event, args):
    if event not in KINDS or not isinstance(args[0], (str, os.PathLike)):
        return
    path = os.fspath(args[0])
    inside = isinstance(path, str) and path.startswith(folder)
    deeper = event in ("os.remove", "os.rmdir") and not os.path.isabs(path)  # of a tree that is being removed
    if inside or deeper:
        count("file", f"{event} {os.path.relpath(path, folder) if inside else path}")
def lines(owner, name, kind):
    real = getattr(owner, name)
    def tracer(frame, event, argument):
        code = frame.f_code
        if OURS not in code.co_filename:
            return None
        if event == "line":
            count(kind, f"line {frame.f_lineno} of {os.path.basename(code.co_filename)} ({code.co_name})")
        return tracer
    def traced(*args, **options):
        outer = sys.gettrace()
        sys.settrace(tracer)
        try:
            return real(*args, **options)
        finally:
            sys.settrace(outer)
            if kind == place == "load":  # nobody knows beforehand how many lines it has
                seen[kind] = fatal - 1
                count(kind, "the first step after it")
    setattr(owner, name, traced)
def live():
    os.setsid()
    out = os.open(os.devnull, os.O_WRONLY)
    err = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(out, 1), os.dup2(err, 2)
    sys.addaudithook(watch)
    for owner, name, kind in (
        (Session, "save", "save"), (checkpoint, "save", "checkpoint"), (Session, "load", "load"),
        (Replay, "annotate", "annotate"), (Replay, "_evict", "evict"), (Replay, "_allocate", "evict"),
        (Run, "metrics", "log"), (Run, "score", "log"),
        (Run, "protocol", "raise"), (Run, "environment", "raise"),
    ):
        if place in (kind, "count"):
            lines(owner, name, kind)
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    os.write(2, f"COUNTED {json.dumps(seen)}\\n".encode())
    os._exit(code)
for line in sys.stdin:
    folder, log, place, fatal, sys.argv = json.loads(line)
    child = os.fork()
    if child == 0:
        live()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


# ---- processes


class Ended(NamedTuple):
    """A process that has ended: its code (negative: a signal's number), stderr, CPU seconds since training began."""

    code: int
    said: str
    cpu: float
    orphans: int  # processes it started that were still there seconds later


class Nursery:
    """Forks of one process that has imported an app, one at a time: seconds less for each."""

    def __init__(self, app: str, waiting: bool = False) -> None:
        self.app = app
        command = [sys.executable, "-c", CHILD, app, *([str(Path(__file__).resolve().parent)] if waiting else [])]
        self._process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def begin(self, folder: Path, log: Path, place: str, fatal: int, options: list[str]) -> int:
        """A process that trains; its id."""
        argv = [self.app, "train", "--logdir", str(folder), *options]
        assert self._process.stdin is not None
        print(json.dumps([str(folder), str(log), place, fatal, argv]), file=self._process.stdin, flush=True)
        return int(self._line())

    def ended(self, seconds: float) -> int | None:
        """How it ended, negative for a signal; None if it has not within that time."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return int(self._line()) if ready else None

    def close(self) -> None:
        """No more."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.app} cannot be imported")
        return line


def train(
    nursery: Nursery, logdir: Path, options: list[str], *, place: str = "", fatal: int = 0, cpu: float = 0
) -> Ended:
    """One `train` in a process of its own, to its end, or killed at a place, or after CPU seconds of training."""
    log = logdir.with_suffix(".stderr")
    log.unlink(missing_ok=True)
    pid = nursery.begin(logdir, log, place, fatal, options)
    begun: float | None = None
    spent = 0.0
    while (code := nursery.ended(0.003 if cpu else 0.05)) is None:
        spent = _cpu(pid) or spent
        if begun is None and log.is_file() and BEGUN in log.read_text(errors="replace"):
            begun = spent
        if cpu and begun is not None and spent - begun >= cpu:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
            cpu = 0
    left = _wait_for_group(pid)
    return Ended(code, log.read_text(errors="replace"), spent - (begun or spent), left)


def _cpu(pid: int) -> float:
    """CPU seconds of a process so far; where the system does not tell, the time of day, which also goes on."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").is_file():
        return time.monotonic()
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_for_group(group: int, seconds: float = 10.0) -> int:
    """Processes of the group that outlive their parent by that long; they are killed then."""
    end = time.monotonic() + seconds
    while (living := list(_group(group))) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in living:
        os.kill(pid, signal.SIGKILL)
    return len(living)


def _group(group: int) -> Iterator[int]:
    """Living processes of a group, where /proc tells."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            yield int(stat.parent.name)


# ---- comparing


class Part(NamedTuple):
    """One line of the table."""

    name: str
    compared: int
    differences: list[str]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything inside nested mappings and sequences, with its path.

    >>> list(leaves({"a": [1, {"b": 2}]}))
    [('a/0', 1), ('a/1/b', 2)]
    """
    if isinstance(value, Mapping):
        inner = [(str(key), one) for key, one in value.items()]
    elif isinstance(value, (list, tuple)):
        inner = [(str(i), one) for i, one in enumerate(value)]
    else:
        yield path, value
        return
    for name, one in inner:
        yield from leaves(one, f"{path}/{name}" if path else name)


def compare(name: str, a: Any, b: Any) -> Part:
    """Where two nested values differ in a bit, a type or a shape.

    >>> compare("x", {"w": torch.ones(2), "n": 3}, {"w": torch.ones(2), "n": 4})
    Part(name='x', compared=2, differences=['n: 3 and 4'])
    """
    one, other = dict(leaves(a)), dict(leaves(b))
    differences = [f"{path}: on one side only" for path in sorted(one.keys() ^ other.keys())]
    for path in [p for p in one if p in other]:
        if (told := _difference(one[path], other[path])) is not None:
            differences.append(f"{path}: {told}")
    return Part(name, len(one), differences)


def _difference(a: Any, b: Any) -> str | None:
    """How two leaves differ, in words, or None."""
    if type(a) is not type(b):
        return f"{type(a).__name__} and {type(b).__name__}"
    x, y = _array(a), _array(b)
    if x is None or y is None:
        return None if a == b else f"{a!r} and {b!r}"[:120]
    if x.dtype != y.dtype or x.shape != y.shape:
        return f"{x.dtype} {x.shape} and {y.dtype} {y.shape}"
    if x.tobytes() == y.tobytes():
        return None
    if x.dtype.kind not in "fiub" or not x.shape:
        return f"{a} and {b}"[:120]
    with np.errstate(invalid="ignore"):
        most = np.max(np.abs(x.astype(np.float64) - y.astype(np.float64)))
    return f"{int((x != y).sum())} of {x.size} numbers, by up to {most:.3g}"


def _array(value: Any) -> NDArray[Any] | None:
    """The bits of a tensor, an array or a float; None for what is compared by ==."""
    if isinstance(value, Tensor):
        return value.detach().view(torch.int16).numpy() if value.dtype == torch.bfloat16 else value.detach().numpy()
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic, float)) else None


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a log without what the machine has a part in. Raises ValueError for a line that is not JSON."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(PRIVATE)} for row in found]


def stored(logdir: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a run's replay holds at its checkpoint: stream -> key -> (T, ...)."""
    replay = Replay(
        logdir / "replay",
        state["streams"],
        stores={},
        limit_bytes=2**62,
        chunk=state["chunk"],
        length=state["length"],
        online=False,
    )
    replay.load_state({**state, "queue": np.zeros((0, 2), np.int64)})
    held: dict[str, Any] = {}
    while replay.steps and len(held) < state["streams"]:  # a row as long as a stream is all of it
        batch = replay.sample(1, replay.steps // state["streams"])
        entries = {key: value[0] for key, value in batch.steps.items() if key not in ("weight", "reset")}
        held[str(int(batch.index.stream[0]))] = entries
    return held


def load(app: str, logdir: Path) -> checkpoint.Checkpoint:
    """The last complete checkpoint. Raises UserError where there is none or it cannot be read."""
    path = checkpoint.latest(logdir)
    if path is None:
        raise UserError(f"no checkpoint in {logdir}")
    return checkpoint.load(path, app=app)


def compare_runs(app: str, a: Path, b: Path) -> list[Part]:
    """Two run folders, part by part."""
    one, other = load(app, a), load(app, b)
    parts = [compare("step", one.step, other.step), compare("weights", one.weights, other.weights)]
    agents = [dict(saved.state["agent"]) for saved in (one, other)]
    parts.append(compare("optimiser", *(agent.pop("optimiser") for agent in agents)))
    parts.append(compare("agent besides", *agents))
    for name in ("loop", "envs", "random"):
        parts.append(compare(name, one.state[name], other.state[name]))
    ends = [saved.state["replay"] for saved in (one, other)]
    parts.append(compare("replay position", *ends))
    parts.append(compare("replay", *(stored(folder, end) for folder, end in zip((a, b), ends, strict=True))))
    known = {"agent", "loop", "envs", "random", "replay", "run"}
    rest = [{name: value for name, value in saved.state.items() if name not in known} for saved in (one, other)]
    parts.append(compare("other state", *rest))
    return parts + [compare(f"{log} ({len(rows(a / log))} rows)", rows(a / log), rows(b / log)) for log in LOGS]


def show(parts: list[Part], limit: int = 4) -> None:
    """The table, and the first differences of each part."""
    for part in parts:
        verdict = f"{len(part.differences):>6} differ" if part.differences else "   equal"
        print(f"  {part.name:28} {part.compared:>7} compared {verdict}")
        for line in part.differences[:limit]:
            print(f"      {line}")


# ---- the two checks


LEFT = ("a half-written checkpoint", "an undo journal", "a draft of a file", "a torn line")
LOAD_LINES = 2_000  # about what going back takes


class Failed(Exception):
    """What was found, in a sentence."""


def _finish(ended: Ended, what: str) -> None:
    if ended.code != 0:
        raise Failed(f"{what} ended with code {ended.code}:\n{_tail(ended.said)}")
    if ended.orphans:
        raise Failed(f"{what} left {ended.orphans} processes behind")


def _tail(said: str) -> str:
    return "\n".join(f"    {line}" for line in said.splitlines()[-12:])


def stopped(nursery: Nursery, folder: Path, options: list[str], steps: int, stop: int) -> None:
    """The run at once against the run in two. Raises Failed."""
    app, whole, halves = nursery.app, folder / "unbroken", folder / "resumed"
    _finish(train(nursery, whole, [*options, "--steps", str(steps)]), "the unbroken run")
    _finish(train(nursery, halves, [*options, "--steps", str(stop)]), "the run up to the stop")
    first = load(app, halves)
    at, length = first.step, first.state["loop"]["length"]
    under_way = int((np.asarray(length) * ~np.asarray(first.state["loop"]["step"]["last"]) > 0).sum())
    print(
        f"stopped at step {at}, actions of the episodes then under way: {np.asarray(length).tolist()} "
        f"({under_way} of {len(length)} environments in the middle of one)"
    )
    ended = train(nursery, halves, [*options, "--steps", str(steps)])
    _finish(ended, "the resumed run")
    if f"at step {at:,}" not in ended.said:
        raise Failed(f"the second process did not go on at step {at}:\n{_tail(ended.said)}")
    parts = compare_runs(app, whole, halves)
    show(parts)
    different = [part.name for part in parts if part.differences]
    if different:
        raise Failed(f"stopped and resumed differs from unbroken in: {', '.join(different)}")
    print("stopped and resumed equals unbroken")


def killed(
    nursery: Nursery, folder: Path, options: list[str], steps: int, kills: int, places: tuple[str, ...], seed: int
) -> None:
    """N kills, and then on to the end. Raises Failed."""
    rng = random.Random(seed)
    app, whole, logdir = nursery.app, folder / "unbroken", folder / "killed"
    options = [*options, "--steps", str(steps)]
    unbroken = train(nursery, whole, options, place="count")
    _finish(unbroken, "the unbroken run")
    counted = re.search(r"COUNTED (.*)", unbroken.said)
    if counted is None:
        raise Failed("the unbroken run did not say how often it came to each place")
    many: dict[str, int] = json.loads(counted[1])
    print(f"unbroken: {unbroken.cpu:.1f} CPU s of training; lines and operations: {many}")
    many["load"] = LOAD_LINES  # the unbroken run never goes back
    never = [place for place in places if place != "time" and place not in many]
    if never:
        print(f"never reached, and left out: {', '.join(never)}")
    places = tuple(place for place in places if place not in never)
    if not places:
        raise Failed("the unbroken run comes to none of these places")
    before, held = 0, Counter[str]()
    for i in range(1, kills + 1):
        place = places[i % len(places)]
        if place in ("load", "raise") and not before:  # nothing to go back to yet
            place = "time"
        # no further than 1/kills of the whole run each time, so that the run lasts for all of them
        if place == "time":
            ended = train(nursery, logdir, options, cpu=max(0.001, rng.uniform(0, unbroken.cpu / kills)))
        elif place == "raise":  # each process comes to all of these lines
            more = [*options, "--steps", str(steps + 100)]
            ended = train(nursery, logdir, more, place=place, fatal=rng.randint(1, many[place]))
        else:
            most = LOAD_LINES if place == "load" else max(1, many[place] // kills)
            ended = train(nursery, logdir, options, place=place, fatal=rng.randint(1, most))
        before, left = _after_kill(app, logdir, i, place, ended, before)
        held.update([place, *left])
    ended = train(nursery, logdir, options)
    _finish(ended, "the run after the last kill")
    _resumed(ended, before)
    _whole(app, logdir, steps)
    parts = compare_runs(app, whole, logdir)
    show(parts)
    print(f"kills: {', '.join(f'{held[place]} {place}' for place in PLACES if held[place])}")
    print(f"they left: {', '.join(f'{name} {held[name]} times' for name in LEFT)}")
    different = [part.name for part in parts if part.differences]
    if different:
        raise Failed(f"killed {kills} times differs from unbroken in: {', '.join(different)}")
    print(f"killed {kills} times equals unbroken")


def _after_kill(app: str, logdir: Path, i: int, place: str, ended: Ended, before: int) -> tuple[int, list[str]]:
    """What a killed process left: the step of the last complete checkpoint, 0 for none, and what lies about."""
    if ended.code == 0:
        raise Failed(f"the run came to its end before kill {i} ({place}): give more --steps")
    if ended.code != -signal.SIGKILL:
        raise Failed(f"process {i} was not killed, it ended with code {ended.code}:\n{_tail(ended.said)}")
    if ended.orphans:
        raise Failed(f"{ended.orphans} processes outlived kill {i} by 10 seconds")
    if BEGUN in ended.said:
        _resumed(ended, before)
    where = re.search(r"KILLED (before .*)", ended.said)
    how = where[1] if where else f"after {ended.cpu:.2f} CPU s of training"
    left = _left(logdir)
    path = checkpoint.latest(logdir)
    step = load(app, logdir).step if path else 0
    if step < before:
        raise Failed(f"kill {i} ({how}) lost a checkpoint: step {before} was complete, now it is {step}")
    print(
        f"kill {i} ({place}): {how}; checkpoint of step {step} is whole{'; left: ' + ', '.join(left) if left else ''}"
    )
    return step, left


def _left(logdir: Path) -> list[str]:
    """Which of LEFT a process left behind."""
    root, replay = logdir / "checkpoint", logdir / "replay"
    torn = [log for log in LOGS if (logdir / log).is_file() and not (logdir / log).read_bytes().endswith((b"\n", b""))]
    found = (
        any(root.glob(".saving-*")),
        any(path.stat().st_size for path in replay.glob("*.undo")),
        any(root.glob("*.draft")) or any(replay.glob("*.draft")) or any(logdir.glob(".*.draft")),
        bool(torn),
    )
    return [name for name, there in zip(LEFT, found, strict=True) if there]


def _resumed(ended: Ended, step: int) -> None:
    """Whether a process went on at that step, or began anew for step 0."""
    said = re.search(r"resuming .* at step ([\d,]+)", ended.said)
    found = int(said[1].replace(",", "")) if said else 0
    if found != step:
        raise Failed(f"a process began at step {found}, the last complete checkpoint was of step {step}")


def _whole(app: str, logdir: Path, steps: int) -> None:
    """Logs in order, each row once; a checkpoint of the end; no drafts; a replay that can be read."""
    saved = load(app, logdir)
    if saved.step < steps:
        raise Failed(f"the last checkpoint is of step {saved.step}, not {steps}")
    for log in LOGS:
        at = [row["step"] for row in rows(logdir / log)]
        if at != sorted(at) or (at and at[-1] > saved.step):
            raise Failed(f"{log} is not in order: {at}")
    trained = [row["step"] for row in rows(logdir / LOGS[0]) if "train/updates" in row]
    if len(set(trained)) != len(trained):
        raise Failed(f"metrics.jsonl tells a step twice: {trained}")
    drafts = [path.name for path in (logdir / "checkpoint").glob(".*")]
    if drafts:
        raise Failed(f"drafts were left in checkpoint/: {drafts}")
    stored(logdir, saved.state["replay"])


def main() -> None:
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    ap.add_argument("--app", default="dreamer", help="dreamer, po_dreamer, ...: its module")
    ap.add_argument("--steps", type=int, help="of the whole run (default 200; with kills 200 for each and 200 more)")
    ap.add_argument("--stop", type=int, help="where it is stopped (default half of --steps)")
    ap.add_argument("--kill", type=int, metavar="N", default=0, help="kill it N times instead")
    ap.add_argument("--at", metavar="PLACE", nargs="+", choices=PLACES, default=PLACES, help="where (default: all)")
    ap.add_argument("--seed", type=int, default=0, help="of the moments of the kills (default 0)")
    ap.add_argument("--keep", type=Path, metavar="DIR", help="where the run folders go and stay (default: they go)")
    ap.add_argument("--waiting", action="store_true", help="draw ahead and write back late, as beside a GPU")
    args, options = ap.parse_known_args()
    if importlib.util.find_spec(args.app) is None:
        ap.error(f"there is no app {args.app!r}: name its module, for example dreamer or po_dreamer")
    if args.keep and any((args.keep / name).exists() for name in ("unbroken", "resumed", "killed")):
        ap.error(f"{args.keep} holds runs of an earlier check: name another folder")
    steps = args.steps or 200 * (args.kill + 1)
    folder = args.keep or Path(tempfile.mkdtemp(prefix="resume-check-"))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{args.app} {' '.join(options)}: {steps} steps")
    nursery = Nursery(args.app, args.waiting)
    try:
        if args.kill:
            killed(nursery, folder, options, steps, args.kill, tuple(args.at), args.seed)
        else:
            stopped(nursery, folder, options, steps, args.stop or steps // 2)
    except (Failed, UserError) as error:
        print(f"FAILED: {error}\nthe run folders are kept in {folder}")
        raise SystemExit(1) from error
    finally:
        nursery.close()
    if args.keep is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

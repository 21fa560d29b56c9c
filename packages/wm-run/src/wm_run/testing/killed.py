"""A run that is killed again and again against the same run left alone."""

from __future__ import annotations

import json
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from wm_run import checkpoint
from wm_run.testing.differences import LOGS, compare_runs, load, rows, show, stored
from wm_run.testing.nursery import BEGUN, Ended, Failed, Nursery, finish, tail, train

PLACES = ("time", "file", "save", "checkpoint", "annotate", "evict", "log", "load", "raise")
LEFT = ("a half-written checkpoint", "an undo journal", "a draft of a file", "a torn line")
LOAD_LINES = 2_000  # about what going back takes


def check_killed(
    app: str,
    options: Sequence[str],
    folder: Path,
    *,
    steps: int,
    kills: int,
    places: Sequence[str] = PLACES,
    seed: int = 0,
    setup: str = "",
    say: Callable[[str], object] = print,
) -> None:
    """SIGKILL `kills` times, always in a new process that goes on from the last, then on to the end: the unbroken run.

    Args:
        app: its module, for example "dreamer".
        options: of its `train`. Kills need checkpoints to go on from: choose `steps` as several times its --save-every.
        folder: where the runs go, `unbroken` and `killed`.
        steps: environment steps of the whole run.
        kills: how many, each at a random moment of the next of `places`.
        places: by turns, of
            time       after some CPU time of training
            file       before an operation on a file of the run folder, reading and going back included
            save       before a line of Python inside saving: logs, replay, checkpoint, pruning, commit
            checkpoint before a line inside writing the checkpoint alone
            annotate   before a line inside writing back to the replay: undo journal, then the chunks
            evict      before a line inside giving up a chunk of the replay or beginning one
            log        before a line inside writing a row of a log
            load       before a line inside going back to a checkpoint
            raise      right after `--steps` was raised and written into config.toml, before a line of what follows it
        seed: of the moments.
        setup: Python that every process runs first.
        say: gets what is found, line by line.

    After each kill the last complete checkpoint is read and checked, and the next process must go on at its step. A place
    that the unbroken run never comes to is left out and said: a replay that is never full evicts nothing. Compared is what
    `check_resumed` compares. Raises Failed with the first differences, UserError for a folder without a run.
    """
    rng, options = random.Random(seed), [*options, "--steps", str(steps)]
    logdir = folder / "killed"
    with Nursery(app, setup) as nursery:
        unbroken, many = _unbroken(nursery, folder / "unbroken", options, say)
        if never := [place for place in places if place not in many]:
            say(f"never reached, and left out: {', '.join(never)}")
        places = [place for place in places if place in many]
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
            before, left = _after_kill(app, logdir, i, place, ended, before, say)
            held.update([place, *left])
        ended = train(nursery, logdir, options)
    finish(ended, "the run after the last kill")
    _resumed(ended, before)
    _whole(app, logdir, steps)
    parts = compare_runs(app, folder / "unbroken", logdir)
    show(parts, say)
    say(f"kills: {', '.join(f'{held[place]} {place}' for place in PLACES if held[place])}")
    say(f"they left: {', '.join(f'{name} {held[name]} times' for name in LEFT)}")
    if different := [part.name for part in parts if part.differences]:
        raise Failed(f"killed {kills} times differs from unbroken in: {', '.join(different)}")
    say(f"killed {kills} times equals unbroken")


def _unbroken(
    nursery: Nursery, logdir: Path, options: list[str], say: Callable[[str], object]
) -> tuple[Ended, dict[str, int]]:
    """The run left alone, and how often it comes to each place; it never goes back, and time is everywhere."""
    ended = train(nursery, logdir, options, place="count")
    finish(ended, "the unbroken run")
    counted = re.search(r"COUNTED (.*)", ended.said)
    if counted is None:
        raise Failed("the unbroken run did not say how often it came to each place")
    many: dict[str, int] = json.loads(counted[1])
    say(f"unbroken: {ended.cpu:.1f} CPU s of training; lines and operations: {many}")
    return ended, many | {"load": LOAD_LINES, "time": 1}


def _after_kill(
    app: str, logdir: Path, i: int, place: str, ended: Ended, before: int, say: Callable[[str], object]
) -> tuple[int, list[str]]:
    """What a killed process left: the step of the last complete checkpoint, 0 for none, and what lies about."""
    if ended.code == 0:
        raise Failed(f"the run came to its end before kill {i} ({place}): give more --steps")
    if ended.code != -signal.SIGKILL:
        raise Failed(f"process {i} was not killed, it ended with code {ended.code}:\n{tail(ended.said)}")
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
    say(f"kill {i} ({place}): {how}; checkpoint of step {step} is whole{'; left: ' + ', '.join(left) if left else ''}")
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

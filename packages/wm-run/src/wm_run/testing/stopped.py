"""A run that was stopped and resumed against the same run at once: in processes of its own, or, in less time, in this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from wm_run import dreams
from wm_run.app import App
from wm_run.cli import main
from wm_run.testing.differences import Part, compare_runs, load, show
from wm_run.testing.nursery import Failed, Nursery, finish, tail, train


def check_resumed(
    app: str,
    options: Sequence[str],
    folder: Path,
    *,
    steps: int,
    stop: int | None = None,
    setup: str = "",
    say: Callable[[str], object] = print,
) -> None:
    """`train --steps steps` at once equals `--steps stop` and then `--steps steps` in one folder, bit for bit.

    Args:
        app: its module, for example "dreamer"; `APP.cli` and `APP.agent` are imported.
        options: of its `train`.
        folder: where the runs go, `unbroken` and `resumed`.
        steps, stop: environment steps; it is stopped half way where `stop` is not given.
        setup: Python that every process runs first.
        say: gets what is found, line by line.

    Compared are weights, optimiser, generators, environments, replay, and every row of metrics.jsonl and scores.jsonl but
    speed, memory and the time (`fps/`, `usage/`, `time/`). Raises Failed with the first differences, UserError for a folder without a run.
    """
    stop = steps // 2 if stop is None else stop
    whole, halves = folder / "unbroken", folder / "resumed"
    with Nursery(app, setup) as nursery:
        finish(train(nursery, whole, [*options, "--steps", str(steps)]), "the unbroken run")
        finish(train(nursery, halves, [*options, "--steps", str(stop)]), "the run up to the stop")
        first = load(app, halves)
        at, length = first.step, np.asarray(first.state["loop"]["length"])
        under_way = int((length * ~np.asarray(first.state["loop"]["step"]["last"]) > 0).sum())
        say(
            f"stopped at step {at}, actions of the episodes then under way: {length.tolist()} "
            f"({under_way} of {len(length)} environments in the middle of one)"
        )
        ended = train(nursery, halves, [*options, "--steps", str(steps)])
        finish(ended, "the resumed run")
    if f"at step {at:,}" not in ended.said:
        raise Failed(f"the second process did not go on at step {at}:\n{tail(ended.said)}")
    parts = compare_runs(app, whole, halves)
    show(parts, say)
    _equal(parts)
    say("stopped and resumed equals unbroken")


def check_goes_on_alike(app: App, folder: Path, *options: object, stop: int) -> dict[str, Any]:
    """`check_resumed` of the preset tiny with these options in this process, of `2 * stop` steps, on a CPU and without films.

    Gives the state at the stop, for a test that wants to know that something was under way then. Raises Failed.
    """
    whole, halves = folder / "unbroken", folder / "resumed"
    tiny = ("train", "--preset", "tiny", "--device", "cpu", *options)
    with mock.patch.object(dreams, "videos", return_value=[]):
        for logdir, steps in ((whole, 2 * stop), (halves, stop)):
            main(app, [str(word) for word in (*tiny, "--steps", steps, "--logdir", logdir)])
        middle = load(app.name, halves)
        torch.rand(3)  # another process would begin with other global generators
        main(app, ["train", "--logdir", str(halves), "--steps", str(2 * stop)])
    parts = compare_runs(app.name, whole, halves)
    if load(app.name, halves).step < 2 * stop or middle.step >= 2 * stop:
        raise Failed(f"a run of {app.name} of {stop} steps does not go on to {2 * stop}")
    _equal(parts)
    return middle.state


def _equal(parts: Sequence[Part]) -> None:
    if different := [part for part in parts if part.differences]:
        first = "; ".join(line for part in different for line in part.differences[:2])
        raise Failed(
            f"stopped and resumed differs from unbroken in: {', '.join(part.name for part in different)} ({first})"
        )

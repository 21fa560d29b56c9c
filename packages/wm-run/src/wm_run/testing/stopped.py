"""A run that was stopped and resumed against the same run at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wm_run.testing.differences import compare_runs, load, show
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
    speed and memory (`fps/`, `usage/`). Raises Failed with the first differences, UserError for a folder without a run.
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
    if different := [part.name for part in parts if part.differences]:
        raise Failed(f"stopped and resumed differs from unbroken in: {', '.join(different)}")
    say("stopped and resumed equals unbroken")

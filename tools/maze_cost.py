"""FLOPs and bytes of Memory Maze at the papers' sizes: an update, an act, and the whole budget, by the counters of tools/bench."""

from __future__ import annotations

from typing import Any

BUDGET = 400_000_000  # environment steps: R2I's, since PO-Dreamer's paper states none
ACTING = 16  # environments side by side
# words of the app's `info`; Dreamer has no preset for mazes: one for pictures, its 12m nets at PO-Dreamer's ratio
COSTS: dict[str, tuple[str, ...]] = {
    "po_dreamer": ("po_dreamer", "--preset", "memory_maze"),
    "r2i": ("r2i", "--preset", "memory_maze"),
    "dreamer": ("dreamer", "--preset", "dmc_vision", "--task", "memory_maze_9x9", "--train_ratio", "64"),
}


def line(low: float, high: float, times: float) -> float:
    """Of something with a fixed part, from one and two of it: `times` as many.

    >>> line(3.0, 5.0, 16)
    33.0
    """
    return low + (high - low) * (times - 1)


def cost(method: str, lengths: tuple[int, int] | None) -> dict[str, Any]:
    """FLOPs and bytes of an update and of an act, at the preset's sizes.

    Rows are alike: one and two stand for the batch. So are steps of R2I, whose row of 1,024 is taken from two `lengths`;
    PO-Dreamer's similarity is not linear in them, and its row is made whole.
    """
    app, *words = COSTS[method]
    from bench.calls import count
    from bench.cases import about, batches_of, prepare
    from bench.update import acting

    case = prepare(app, words)
    whole = case.config

    def of(batch: int, length: int) -> Any:
        case = prepare(app, [*words, "--batch", str(batch), "--length", str(length)])
        batches = batches_of(case)
        return count(lambda: case.agent.update(*batches))

    def update(name: str, counted: dict[tuple[int, int], Any]) -> float:
        def rows(length: int) -> float:
            return line(getattr(counted[1, length], name), getattr(counted[2, length], name), whole.batch)

        if lengths is None:
            return rows(whole.length)
        return line(rows(lengths[0]), rows(lengths[1]), whole.length / lengths[0])

    each = lengths or (whole.length,)
    counted = {(batch, length): of(batch, length) for batch in (1, 2) for length in each}
    acts = count(acting(case, ACTING))
    updates, steps = BUDGET * whole.train_ratio / (whole.batch * whole.length), BUDGET / ACTING
    description = about(case, app)
    row = {name: description[name] for name in ("parameters", "precision", "torch", "commit", "hardware")}
    row |= {"kind": "cost", "method": method, "words": words, "batch": whole.batch, "length": whole.length}
    row |= {"ratio": whole.train_ratio, "updates": round(updates), "budget": BUDGET, "acting": ACTING}
    for name in ("flops", "bytes"):
        one, act = update(name, counted), getattr(acts, name)
        row |= {f"update_{name}": one, f"act_{name}": act / ACTING, f"total_{name}": one * updates + act * steps}
    return row

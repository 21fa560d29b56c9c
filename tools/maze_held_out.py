"""What every arm of tools/maze.py is held against: mazes that no run learns from, walked at random, and random play."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

STREAMS, RECORDS, SHOWN = 4, 300, 32  # of the random walk; rows that are foretold
CONTEXT, AHEAD = 16, (1, 5, 15, 45)


def kept(file: Path, make: Callable[[], bytes]) -> bytes:
    """What is the same for every arm is made once."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make())
    return file.read_bytes()


def random_scores(task: str, folder: Path, episodes: int) -> list[float]:
    """By uniformly random actions, in the episodes of an evaluation of seed 0, each in an environment of its own."""

    def make() -> bytes:
        from env_adapters import make_vec
        from wm_run.measures import RandomActions
        from wm_run.rollout import evaluate
        from wm_run.scoring import FRESH

        with closing(make_vec(task, episodes, workers=0)) as envs:
            agent: Any = RandomActions(envs.action_spec)
            played = evaluate(agent, envs, episodes=episodes, seed=FRESH)
        return json.dumps([episode.score for episode in played]).encode()

    found: list[float] = json.loads(kept(folder / f"random-{task}-{episodes}.json", make))
    return found


def walk(envs: Any, records: int, seed: int) -> Iterator[dict[str, Any]]:
    """Records under random actions that go on for five steps in the mean: standing still tells a model nothing."""
    rng, step = np.random.default_rng(seed), envs.reset(seed)
    n, size = envs.num_envs, envs.action_spec.size
    doing = rng.integers(size, size=n)
    for _ in range(records):
        yield {key: np.array(value) for key, value in step.items()}
        doing = np.where(rng.random(n) < 0.2, rng.integers(size, size=n), doing)
        step = envs.step(np.eye(size, dtype=np.float32)[doing])


def held_out(task: str, folder: Path) -> list[dict[str, Any]]:
    """The records of the random walk in mazes that no run learns from."""

    def make() -> bytes:
        from env_adapters import make_vec

        with closing(make_vec(task, STREAMS, workers=0)) as envs:
            found = list(walk(envs, RECORDS, seed=77_000))
        file = io.BytesIO()
        columns: dict[str, Any] = {key: np.stack([record[key] for record in found]) for key in found[0]}
        np.savez_compressed(file, **columns)
        return file.getvalue()

    with np.load(io.BytesIO(kept(folder / f"held-out-{task}.npz", make))) as file:
        columns = {key: file[key] for key in file.files}
    return [{key: column[t] for key, column in columns.items()} for t in range(len(columns["first"]))]


def errors(agent: Any, untrained: Any, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Squared errors of a pixel by steps ahead; `seen` is that of what is observed. The same rows for every agent."""
    from wm_run.openloop import openloop
    from wm_run.replay import Replay

    def looked(agent: Any) -> Any:
        n, length = len(records[0]["first"]), CONTEXT + AHEAD[-1]
        replay = Replay(
            None, n, stores=agent.stores, limit_bytes=2**40, chunk=len(records), length=length, online=False
        )
        carry = agent.initial(n)
        for record in records:
            carry, _, notes = agent.act(carry, record)  # what it would do is not done
            replay.add({**record, **notes})
        batch = replay.sample(SHOWN, length, max(agent.stores.values(), default=0))
        return openloop(agent, batch, CONTEXT)["image"]

    mine, blank = looked(agent), looked(untrained)
    mean = dataclasses.replace(mine, predicted=mine.true.mean((0, 1), keepdim=True).expand_as(mine.true))
    said = {"model": mine.error(), "copy": mine.copy_error(), "mean": mean.error(), "untrained": blank.error()}
    found: dict[str, Any] = {name: [round(float(each[i - 1]), 5) for i in AHEAD] for name, each in said.items()}
    observed = (mine.predicted - mine.true)[:, :CONTEXT].square().mean()
    return found | {"seen": round(float(observed), 5), "ahead": AHEAD, "rows": len(mine.true)}

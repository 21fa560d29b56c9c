"""Held-out records -> the rows that all runs are looked at with: a context, what came after it, and what the suite tells.

Sizes: B rows, T = C + H: context and steps ahead.
"""

from __future__ import annotations

import dataclasses
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from wm_core.errors import UserError
from wm_core.names import NOTE
from wm_core.types import Batch, Steps

from wm_run.loading import Loaded
from wm_run.microscope.errors import ahead
from wm_run.replay import Replay
from wm_run.results import plain_json
from wm_run.rollout import rollout
from wm_run.scoring import fresh

FACTS = "told/"  # entries of this prefix are no observations
DRAWN = 4  # times as many rows are drawn as are kept, and those kept that stay within an episode longest
STREAMS = 4
Parting = Literal["time", "streams"]
RECORDS = 600  # of each stream, of which rows are taken where there is no recording


@dataclass(frozen=True)
class Rows:
    """steps (B, T, ...) as a replay gives them, without notes; told (B, T, ...) by name; about: where they come from, as JSON.

    stream and start (B,) say where each row lies. parted: how `halves` parts them.
    """

    steps: Steps
    told: dict[str, Tensor]
    context: int
    stream: Tensor
    start: Tensor
    about: dict[str, Any]
    space: Any = None  # of the observations, where it is known
    parted: Parting = "time"

    @property
    def length(self) -> int:
        return int(self.steps["first"].shape[1])

    @property
    def valid(self) -> Tensor:
        """(B, H): the steps ahead that lie in the episode that the context ends in."""
        return ahead(self.steps["first"], self.context)

    def halves(self) -> tuple[Tensor, Tensor]:
        """Rows to fit a probe to and rows to test it on, by number; none of them share a record. By time these are the earlier
        half of the records and the later one, less those of the first that reach into the second, and every stream may stand in
        both; by streams those of the first streams and those of the others. Raises UserError for a single stream, which
        time alone parts."""
        return self._by_streams() if self.parted == "streams" else self._by_time()

    def _by_streams(self) -> tuple[Tensor, Tensor]:
        streams, rows = torch.unique(self.stream, return_counts=True)
        if len(streams) < 2:
            raise UserError("the rows are all of one stream, which only time parts: leave out --halves streams")
        until = int((rows.cumsum(0) <= (len(self.stream) + 1) // 2).sum().clamp(1, len(streams) - 1))
        late = torch.isin(self.stream, streams[until:])
        return torch.nonzero(~late)[:, 0], torch.nonzero(late)[:, 0]

    def _by_time(self) -> tuple[Tensor, Tensor]:
        order = torch.argsort(self.start * (int(self.stream.max()) + 1) + self.stream, stable=True)
        middle = len(order) // 2
        cut = int(self.start[order[middle]]) if len(order) > 1 else 0
        fit = order[:middle]
        return fit[self.start[fit] + self.length <= cut], order[middle:]


def recorded(folder: Path, part: str, rows: int, context: int, imagined: int, seed: int) -> Rows:
    """Rows of a recording's part."""
    from wm_run.recording import Recording, RecordingError

    found = Recording.open(folder)
    held = found.part(part).position
    if 0 < held < context + imagined:
        raise RecordingError(
            f"a row of {context + imagined} records, --context {context} and --imagined {imagined} of them, was asked of "
            f"{part}, which holds {held:,} in each stream: give smaller ones, or record more"
        )
    batch = found.rows(part, DRAWN * rows, context + imagined, 0, seed)
    about = {
        "source": str(folder),
        "part": part,
        "task": found.task,
        "protocol": plain_json(dict(found.protocol)),
        "played": found.source,
        "checksum": found.checksum,
    }
    return chosen(batch, rows, context, about | {"seed": seed}, found.observation_space)


def played(loaded: Loaded, rows: int, context: int, imagined: int, seed: int) -> Rows:
    """Rows of fresh episodes that a run plays, in environments that it has not learned from."""
    config = dataclasses.replace(loaded.config, workers=0)
    streams = min(STREAMS, config.envs) if config.exclusive else STREAMS
    with closing(fresh(loaded.app, config, streams)) as envs:
        records = max(RECORDS, 2 * (context + imagined))
        replay = Replay(None, streams, stores={}, limit_bytes=2**40, chunk=records, length=records, seed=seed)
        told: Any = getattr(envs, "told", dict)  # no promise of Environments
        for t, step in enumerate(rollout(loaded.agent, envs, seed=seed), 1):
            replay.add({key: value for key, value in step.items() if not key.startswith(NOTE)} | told())
            if t == records:
                break
        protocol = plain_json({"task": config.task, **envs.protocol})
        batch = replay.sample(DRAWN * rows, context + imagined)
    about = {"source": f"fresh episodes of {loaded.app.name}, {loaded.config.task}", "task": loaded.config.task}
    return chosen(batch, rows, context, about | {"protocol": protocol, "seed": seed}, loaded.observation_space)


def chosen(batch: Batch, rows: int, context: int, about: dict[str, Any], space: Any = None) -> Rows:
    """Of a batch the rows whose episode goes on longest after the context, in the order in which they lie; no two alike."""
    place = torch.stack([batch.index.stream, batch.index.start], 1)
    _, inverse = torch.unique(place, dim=0, return_inverse=True)
    once = torch.from_numpy(np.unique(inverse.numpy(), return_index=True)[1])
    left = ahead(batch.steps["first"], context).sum(1)[once]
    if not bool(left.any()):
        raise UserError(
            f"no row goes on within its episode after {context} records of context: take another --context, or more --rows"
        )
    best = once[left.argsort(descending=True, stable=True)[:rows]].sort().values
    entries = {key: value[best] for key, value in batch.steps.items() if not key.startswith(NOTE)}
    steps = {key: value for key, value in entries.items() if not key.startswith(FACTS)}
    steps["reset"] = steps["first"].clone()
    steps["reset"][:, 0] = True  # nothing of before a row is known to anybody
    told = {key.removeprefix(FACTS): value for key, value in entries.items() if key.startswith(FACTS)}
    counts = {"rows": len(best), "context": context, "imagined": steps["first"].shape[1] - context}
    index = batch.index
    return Rows(steps, told, context, index.stream[best], index.start[best], about | counts, space)

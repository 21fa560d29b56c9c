"""agent, environments, replay, logs -> one checkpoint, and back: all that a run is, and nothing beside it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from wm_core import draws
from wm_core.errors import UserError
from wm_core.learner import Learner
from wm_core.ranks import ranks

from wm_run import checkpoint
from wm_run import feed as feeds
from wm_run.alarm import NotFinite, check_weights, dump
from wm_run.config import RunConfig
from wm_run.folder import Run
from wm_run.gpu_memory import free_on
from wm_run.loading import fit
from wm_run.loop import Environments, Position
from wm_run.memory import check_memory, free_memory
from wm_run.offline import Made, check_fits
from wm_run.preflight import check_disk, disk_bytes, nested_bytes
from wm_run.replay import Replay
from wm_run.rollout import drawing_from
from wm_run.stand_in import StandIn
from wm_run.stop import say
from wm_run.unfit import read_or_refused

if TYPE_CHECKING:
    from wm_run.app import App


@dataclass
class Session:
    """The parts of a run under way; what is saved of them and how they are put back."""

    app: App
    config: RunConfig
    agent: Learner
    envs: Environments
    replay: Replay
    run: Run
    about: Mapping[str, Any] = field(default_factory=dict)  # its config and protocol, for each checkpoint
    stopped: Callable[[], bool] = lambda: False  # whether the run was told to end

    def __post_init__(self) -> None:
        # drawn ahead, a row would be an old one: the newest of each stream are there only when they are due
        lane = None if self.agent.aligned else feeds.lane_to(self.agent.device)
        self.feed = feeds.Feed(self.replay, lane)

    @property
    def _ratio(self) -> dict[str, Any]:
        return {
            "train_ratio": self.config.train_ratio,
            "replayed": self.config.replayed * ranks().count,
            "first": self.config.first_updates,
        }

    @property
    def recorded(self) -> StandIn | None:
        """What stands in for environments where the run learns from a recording alone."""
        return self.envs if isinstance(self.envs, StandIn) else None

    @property
    def _at(self) -> type[Position]:
        return Position if self.recorded is None else Made

    def begin(self) -> tuple[Position, list[str]]:
        """At the first step, and sentences about what lies in the folder already. Raises UserError where a checkpoint is
        there and none can be gone on from."""
        if lost := checkpoint.damaged(self.run.logdir):
            raise UserError(
                f"no checkpoint in {self.run.logdir} is whole ({lost[0]} lacks a part): put it back, or give another "
                "--logdir to begin anew"
            )
        saves = self.run.logdir / "checkpoint"
        if os.path.lexists(saves) and not saves.is_dir():  # a link to nowhere, too: told now, not at the first save
            raise UserError(
                f"{saves} is no folder, and the checkpoints go there: move it away, or give another --logdir"
            )
        kept = " and ".join(path.name for path in self.run.set_aside())
        self.run.cut({})
        anew = f"{self.run.logdir} has no checkpoint, so the run begins anew; its logs are kept as {kept}"
        notices = [anew] if kept else []
        return self._at.begin(self.agent, self.envs, seed=self.config.seed, **self._ratio), notices

    def too_late(self, at: Position) -> str:
        """A sentence where the run ends before its first update, else nothing."""
        config, needed = self.config, self.config.before_learning
        if self.recorded is not None:
            return ""
        actions = config.steps // self.envs.repeat
        if config.train_ratio <= 0 or config.steps <= at.steps or actions > needed:
            return ""
        return (
            f"this run ends before it learns: the first update needs about {needed * self.envs.repeat:,} steps "
            f"(learning_starts, or length in every environment), and it has {config.steps:,}"
        )

    def check_room(self, at: Position) -> None:
        """Raises UserError where disk, memory or replay cannot hold the rest of the run. One act is made and undone."""
        config, agent, recorded = self.config, self.agent, self.recorded
        notes = self.notes(at)
        self.replay.check({**at.step, **notes})
        noted = nested_bytes(dict(notes)) // self.envs.num_envs
        step = noted + nested_bytes(dict(at.step)) // self.envs.num_envs
        weights = nested_bytes(agent.state_dict())
        replay, checkpoints = disk_bytes(
            step_bytes=step,
            noted_bytes=noted,
            actions=config.steps // self.envs.repeat if recorded is None else recorded.records,
            envs=self.envs.num_envs,
            chunk=config.chunk,
            replay_bytes=config.replay_bytes,
            checkpoint_bytes=weights + nested_bytes(agent.state()),
            checkpoints=config.keep + 1 + (config.steps // config.milestone_every if config.milestone_every else 0),
        )
        check_disk(self.run.logdir, replay=replay, checkpoints=checkpoints)
        batch = config.batch * config.length * step
        gradients = weights if agent.device.type == "cpu" else 0
        way_out = "lower --batch, --length or --size"
        lasting = 2 * batch + gradients  # the batch in use and the one before it
        check_memory(lasting, free_memory(), "(gradients and batches)", way_out)
        check_memory(batch + weights, free_on(agent.device.type), "(gradients and batches)", way_out)
        if recorded is not None:
            check_fits(recorded, self.replay, step, config.longest)

    def notes(self, at: Position) -> dict[str, Tensor]:
        """What the agent would note of the records at hand. One act is made and undone."""
        with drawing_from(self.agent, draws.Generator(0, self.agent.device)):
            return self.agent.act(at.carry, at.step)[2]

    def save(self, at: Position) -> Path:
        """Everything that the run is, as one checkpoint. Changes nothing of it. Raises NotFinite and saves nothing where
        a weight is not.

        The replay can go back to the checkpoint before it until every process has saved this one.
        """
        check_weights(self.agent.named_parameters())
        self.replay.flush()
        replay = self.replay.state()
        state = {
            "agent": self.agent.state(),
            "loop": at.state(),
            "envs": self.envs.state(),
            "replay": replay,
            "run": self.run.offsets(),
            "random": random_state(),
        } | ({"feed": self.feed.state()} if self.feed.lane else {})
        meta = {"app": self.app.name, "version": self.app.version, "task": self.config.task, **self.about}
        meta["logs"] = self.run.marks()
        keep = max(self.config.keep, min(2, ranks().count))  # others may be killed before they have saved
        kept = {"keep": keep, "milestone_every": self.config.milestone_every}
        weights = self.agent.state_dict()
        path = checkpoint.save(self.run.logdir, at.steps, weights=weights, state=state, meta=meta, **kept)
        ranks().total(1)  # all have saved
        self.replay.commit(replay)
        for sentence in self.run.take_notices():
            say(sentence)
        return path

    def load(self, saved: checkpoint.Checkpoint) -> tuple[Position, list[str]]:
        """Stand where it was saved; also sentences about what could not be put back.

        Raises UserError for a state that is not this program's. The logs are cut last: all else may still refuse.
        """
        fit(self.agent, saved)
        notices = [f"{path} lacks a part and is passed over; it is kept" for path in checkpoint.passed_over(saved.path)]
        with read_or_refused(self.app, saved):
            if _numbers(saved.state["agent"]) != _numbers(self.agent.state()):
                notices.append("it was saved on another kind of device: random numbers go on from a new seed")
            self.run.check(saved.state["run"])  # before anything is undone
            self.agent.load_state(saved.state["agent"])
            begun = self.envs.load_state(saved.state["envs"])
            at = self._at.resume(saved.state["loop"], self.agent.device, **self._ratio)
            if begun is not None:  # resets that had failed, and happened only now
                at.step, at.arrived = (begun, None) if at.arrived is None else (at.step, begun)
            checkpoint.check_step(saved)
            notices += self.replay.load_state(saved.state["replay"])
            notices += self.feed.load_state(saved.state.get("feed", {"late": [], "ahead": []}))
            load_random_state(saved.state["random"])
            self.run.cut(saved.state["run"], saved.meta.get("logs"))
            notices += self.run.take_notices()
            if ranks().count > 1:
                checkpoint.go_back(saved.path)
        return at, notices

    def alarm(self, error: NotFinite, at: Position) -> str:
        """Keep what there is to see of it, and say what to do: one sentence. Nothing is saved."""
        logdir, updates = self.run.logdir, int(self.agent.clock.updates)
        folder, kept = logdir / f"alarm-{at.steps}", checkpoint.latest(logdir)
        odd = dump(error, folder, {"step": at.steps, "updates": updates, "checkpoint": str(kept) if kept else None})
        good = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
        seen = f"; {', '.join(odd)} of that batch held such numbers before the update" if odd else ""
        way = f"go on from it with lower learning rates in a new run (--init-from {logdir})" if kept else "start anew"
        return (
            f"{error} at step {at.steps:,}, about update {updates:,}: the run stops and saves nothing of it, {good}, what "
            f"the update was made of is in {folder}{seen}; {'look at the environment, or ' if odd else ''}{way}"
        )


def _numbers(state: Mapping[str, Any]) -> torch.Size | None:
    """Of what shape the generator's state is: another one on each kind of device."""
    return state["source"]["state"].shape if "source" in state else None


def seed_all(seed: int) -> None:
    """Every global generator; what learns and plays has its own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for environments that draw from it
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Of the global generators: dropout draws from torch's, an environment may draw from the others."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numpy = np.random.get_state()  # noqa: NPY002
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": numpy, "python": random.getstate()}


def load_random_state(state: Mapping[str, Any]) -> None:
    """Put the global generators back."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])

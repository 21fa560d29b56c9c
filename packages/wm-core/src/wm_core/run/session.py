"""agent, environments, replay, logs -> one checkpoint, and back: all that a run is, and nothing beside it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wm_core.agent import Agent
from wm_core.replay import Replay
from wm_core.run import checkpoint
from wm_core.run.config import RunConfig
from wm_core.run.folder import Run
from wm_core.run.loop import Environments, Position

if TYPE_CHECKING:
    from wm_core.run.cli import App


@dataclass
class Session:
    """The parts of a run under way; what is saved of them and how they are put back."""

    app: App
    config: RunConfig
    agent: Agent
    envs: Environments
    replay: Replay
    run: Run

    @property
    def _ratio(self) -> dict[str, Any]:
        return {"train_ratio": self.config.train_ratio, "replayed": self.config.batch * self.config.length}

    def begin(self) -> Position:
        """At the first step."""
        self.run.cut({})
        return Position.begin(self.agent, self.envs, seed=self.config.seed, **self._ratio)

    def save(self, at: Position) -> Path:
        """Everything that the run is, as one checkpoint. Changes nothing of it."""
        self.replay.flush()
        replay = self.replay.state()
        state = {
            "agent": self.agent.state(),
            "loop": at.state(),
            "envs": self.envs.state(),
            "replay": replay,
            "run": self.run.offsets(),
            "random": random_state(),
        }
        meta = {"app": self.app.name, "version": self.app.version, "task": self.config.task}
        logdir = self.run.logdir
        path = checkpoint.save(logdir, at.steps, weights=self.agent.state_dict(), state=state, meta=meta)
        self.replay.commit(replay)
        return path

    def load(self, saved: checkpoint.Checkpoint) -> tuple[Position, list[str]]:
        """Stand where it was saved; also sentences about what could not be put back."""
        self.agent.load_state_dict(saved.weights)
        self.agent.load_state(saved.state["agent"])
        self.envs.load_state(saved.state["envs"])
        notices = self.replay.load_state(saved.state["replay"])
        self.run.cut(saved.state["run"])
        load_random_state(saved.state["random"])
        return Position.resume(saved.state["loop"], self.agent.device, **self._ratio), notices


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

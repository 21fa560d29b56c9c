"""Players in the environments of a task -> a recording: counted, seeded, and gone on with after anything.

`train` has n streams in lock-step until it has its steps; `held_out` one stream of whole episodes, in environments with
seeds of their own. A collection that was killed and is repeated becomes byte for byte the one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from wm_core.errors import UserError

from wm_run.config import RunConfig
from wm_run.episodes import score_of
from wm_run.lock import locked
from wm_run.loop import Environments
from wm_run.options import Memory
from wm_run.players import Player, Trained, Wish, player, wished
from wm_run.progress import Progress
from wm_run.recorder import Writer, under_way
from wm_run.recording import PARTS, About, Recording
from wm_run.rollout import LONGEST
from wm_run.schedule import Schedule
from wm_run.stop import heeded, say
from wm_run.tasks import Tasks
from wm_run.trust import remember

APART = 1_000_000_007  # added to the seed for the environments that are held out


@dataclass(frozen=True)
class Collection:
    """What is collected.

    steps: environment steps of `train`, with action repeat; held_out: so many more, as a share of them, in whole episodes.
    who: as `players.wished` reads it. options: of the task. memory: what trained players know where they
    begin (`players.Trained`). make: who makes its environments. save_every: seconds.
    """

    task: str
    folder: Path
    steps: int
    who: Sequence[str] = ("random",)
    seed: int = 0
    envs: int = 16
    held_out: float = 0.1
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int = -1
    device: str = "auto"
    memory: Memory = "auto"
    make: Any = "env_adapters:make_vec"
    save_every: float = 30.0

    def __post_init__(self) -> None:
        """Raises UserError for numbers of which no recording can be made."""
        if self.steps < 1:
            raise UserError(f"--steps {self.steps} is no recording: give at least 1")
        if self.envs < 1:
            raise UserError(f"--envs {self.envs} is no number of environments: give at least 1")
        if not 0 <= self.held_out <= 1:
            raise UserError(f"--held-out {self.held_out} is a share of --steps: give 0 to 1")
        if not 0 <= self.seed < 2**62:
            raise UserError(f"--seed {self.seed} is out of range: give 0 or more, below 2**62")

    def environments(self, n: int) -> Environments:
        """n of the task, which from then on was asked for here (`wm_run.trust`), also by a run that learns from these."""
        config, tasks = RunConfig(task=self.task, env=dict(self.options), workers=self.workers), Tasks(make=self.make)
        envs = tasks(config, n)
        if notice := remember(tasks, config):
            say(notice)
        return envs


def collect(asked: Collection, stopped: Callable[[], bool] | None = None) -> Recording | None:
    """The recording, or None where it was told to stop (a signal, or `stopped`, asked after every record): the same call goes
    on with it. Raises UserError where it cannot be, and what the environments raise."""
    wishes = wished(asked.who)
    if asked.memory != "auto" and "run" not in {wish.kind for wish in wishes}:
        raise UserError(f"--memory {asked.memory} is of a trained player, and --who names none: leave it out")
    with locked(asked.folder, doing="recording into", instead="another folder with --to"), heeded() as stop:
        return _collect(asked, wishes, stopped or (lambda: bool(stop)))


def _collect(asked: Collection, wishes: list[Wish], stopped: Callable[[], bool]) -> Recording | None:
    steps = {"train": asked.steps, "held_out": int(np.ceil(asked.steps * asked.held_out))}
    saved, writer, played = under_way(asked.folder), None, dict[str, list[int]]()
    for at, part in enumerate(PARTS):
        if saved is not None and at < PARTS.index(saved["part"]):
            played[part] = saved["spent"][part]
        elif steps[part]:
            n = asked.envs if part == "train" else 1
            with closing(asked.environments(n)) as envs:
                seeds = [(asked.seed, at, which) for which in range(len(wishes))]
                players = [
                    player(wish, envs, seed, asked.device, asked.memory)
                    for wish, seed in zip(wishes, seeds, strict=True)
                ]
                writer = writer or _writer(asked, envs, wishes, players)
                going = Part(
                    asked, writer, part, envs, players, Schedule([wish.share for wish in wishes], n), dict(played)
                )
                if not going.play(steps[part], stopped):
                    return None
                played[part] = going.schedule.steps.tolist()
    assert writer is not None
    total = np.sum(list(played.values()), 0) * writer.about.repeat
    sources = [
        {"who": who, "share": share, "seed": asked.seed, **({"memory": more[1]} if more[1:] else {})}
        for who, share, *more in writer.asked["who"]
    ]
    writer.finish([one | {"steps": int(count)} for one, count in zip(sources, total, strict=True)])
    return Recording.open(asked.folder)


def _writer(asked: Collection, envs: Environments, wishes: list[Wish], players: list[Player]) -> Writer:
    who = [
        [
            wish.who,
            wish.share,
            *([one.step, *["training's at the start"] * one.remembers] if isinstance(one, Trained) else []),
        ]
        for wish, one in zip(wishes, players, strict=True)
    ]
    names = ("task", "steps", "seed", "envs", "held_out")
    request = {name: getattr(asked, name) for name in names} | {"options": dict(asked.options), "who": who}
    about = About.of(envs, asked.task, asked.options)
    return Writer(asked.folder, about, streams={"train": asked.envs}, asked=request)


@dataclass
class Part:
    """One part under way."""

    asked: Collection
    writer: Writer
    name: str
    envs: Environments
    players: list[Player]
    schedule: Schedule
    before: Mapping[str, list[int]]  # actions of each player in the parts before

    def play(self, steps: int, stopped: Callable[[], bool]) -> bool:
        """To so many environment steps, from where it was saved; whether they were made."""
        total, saved = steps, time.monotonic()
        record = self._begin()
        with Progress(total, start=self._steps, label=f"collect {self.name}") as progress:
            while not self._done(steps, record):
                if stopped():
                    self._save(record)
                    return False
                if time.monotonic() - saved > self.asked.save_every:
                    self._save(record)
                    saved = time.monotonic()
                given = np.stack([one.act(record) for one in self.players])  # (players, n, A)
                record = self._note(self.envs.step(given[self.schedule.player, np.arange(self.envs.num_envs)]))
                progress.update(self._steps, episodes=self.writer.ended(self.name))
        return True

    @property
    def _steps(self) -> int:
        return self.writer.actions(self.name) * self.envs.repeat

    def _done(self, steps: int, record: Mapping[str, Any]) -> bool:
        """Held-out episodes are whole, but for one that does not end."""
        if self._steps < steps:
            return False
        return self.name == "train" or bool(record["last"][0]) or self._steps > steps + LONGEST * self.envs.repeat

    def _begin(self) -> dict[str, Any]:
        saved = self.writer.saved
        if saved is None or saved["part"] != self.name:
            return self._note(self.envs.reset(self.asked.seed + (0 if self.name == "train" else APART)))
        self.schedule.load_state(saved["turns"])
        for one, state in zip(self.players, saved["players"], strict=True):
            one.load_state(state)
        self.envs.load_state(saved["envs"])
        say(f"going on with {self.asked.folder} at step {self._steps:,} of {self.name}")
        self._tell()
        return dict(saved["record"])

    def _note(self, step: Mapping[str, Any]) -> dict[str, Any]:
        """A record has arrived: who plays on from it, and what the suite tells of the state. Raises UserError instead where
        environments are at an end, so that nothing is saved of that."""
        if self.envs.failure:
            raise UserError(self.envs.failure)
        facts = getattr(self.envs, "told", dict)  # no promise of Environments
        record = {**step, **facts()}
        playing = self.schedule.player.copy()
        self.schedule.begin(record)
        who = np.where(record["first"], self.schedule.player, playing)
        self.writer.add(self.name, record, score_of(self.envs, record), self.envs.cut, who)
        self._tell()
        return record

    def _tell(self) -> None:
        for sentence in self.envs.take_faults():
            say(sentence)

    def _save(self, record: Mapping[str, Any]) -> None:
        self.writer.save(
            {
                "part": self.name,
                "record": dict(record),
                "turns": self.schedule.state(),
                "players": [one.state() for one in self.players],
                "envs": self.envs.state(),
                "spent": dict(self.before),
            }
        )

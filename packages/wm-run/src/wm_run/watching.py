"""What a run does beside learning: checkpoints, evaluations and films by step, and those of its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from wm_core.ranks import Alone, learning_with, ranks

from wm_run import dreams, evaluation, scoring
from wm_run.cli import mistaken
from wm_run.held_out import held_out
from wm_run.loading import has_world
from wm_run.loop import Position
from wm_run.memory import exhausted
from wm_run.observer import key_shown
from wm_run.progress import Progress
from wm_run.results import plain_json, write_json
from wm_run.rollout import LONGEST
from wm_run.scoring import Unmade
from wm_run.session import Session
from wm_run.stop import say

T = TypeVar("T")
DUE = "updates due"


class Watch:
    """Asked before every iteration: saves, evaluates and films by step, and says whether to go on. A `Log` that passes on."""

    def __init__(self, session: Session, progress: Progress, at: Position) -> None:
        self.session, self.progress, self.stopped, self.at = session, progress, session.stopped, at
        config = session.config
        shows = {} if config.exclusive or not config.task else {"eval": config.eval_every, "video": config.video_every}
        looks = {} if session.recorded is None else {"held_out": config.held_out_every}
        self.every = shows | looks | {"save": config.save_every}
        self.past = {name: at.steps // every for name, every in self.every.items() if every}
        self.saved: int | None = at.steps or None
        self.failed = False  # an environment, for good; of any process
        self.halted = False  # told to stop, any process of the run, and with it all
        self.beside = False  # whether environments were made beside the run's own
        self.lately: dict[str, deque[float]] = {}  # scores and outcomes of the last episodes
        self.learns = config.train_ratio > 0 and not session.too_late(at)
        self.given = 0  # updates when last asked

    def __call__(self, at: Position) -> bool:
        if self.given == 0 < at.ratio.given:
            self.progress.restart(at.steps)  # until here it only acted, which is many times as fast
        self.given = at.ratio.given
        self.progress.measuring = self.learns and self.given < 2  # from one update to another a speed can be told
        failure, due = bool(self.session.envs.failure), self._due(at)
        at.unshown = []
        if not self.beside and {"eval", "video"} & {*due}:  # a task that cannot have them may end the process,
            self.beside = True
            self._save(at)  # and this does not say that they are to be made: the run goes on beyond them then
        at.unshown = [] if ranks().index else [name for name in due if name in ("eval", "video")]
        for name in due:  # the checkpoint last: it holds what the others have logged
            if name == "save":
                self._save(at)
            elif name == "held_out":
                self._held_out(at)
            elif not ranks().index and not self.stopped() and not failure:  # the first shows for all, and asks nobody
                what, show = {"eval": ("evaluation", self._eval), "video": ("video", self._video)}[name]
                with learning_with(Alone()):
                    possibly(self.session, f"{what} at step {at.steps:,}", partial(show, at))
                if not self.stopped():
                    at.unshown.remove(name)
        if at.unshown:
            self.saved = None  # what was saved at this step, if anything, does not say so
        self.progress.countdown(DUE, 0)
        crowded, stopped, failed = ranks().total(self.session.replay.crowded, self.stopped(), failure)
        if crowded:
            self._save(at)
        self.progress.update(at.steps)
        self.failed, self.halted = bool(failed), bool(stopped)
        return at.steps < self.session.config.steps and not stopped and not failed

    def between(self) -> bool:
        """Asked between two updates of one iteration, of which there may be hundreds: whether the run was told to stop."""
        self.progress.countdown(DUE, self.at.due)
        return self.stopped()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.session.run.metrics(step, values)

    def score(self, step: int, score: float, length: int, /, **outcomes: float) -> None:
        self.session.run.score(step, score, length, **outcomes)
        for name, value in {"score": score, **outcomes}.items():
            self.lately.setdefault(name, deque(maxlen=20)).append(value)
        self.progress.update(step, **{name: float(np.mean(values)) for name, values in self.lately.items()})

    def _due(self, at: Position) -> list[str]:
        """What is to be made now, and what a stop came between before."""
        passed = {name: at.steps // self.every[name] for name in self.past}
        due = [name for name in self.past if passed[name] > self.past[name] or name in at.unshown]
        self.past = passed
        return due

    def _save(self, at: Position) -> None:
        self.session.save(at)
        self.saved = at.steps

    def _held_out(self, at: Position) -> None:
        """Losses on as many held-out steps as two batches have."""
        session, config = self.session, self.session.config
        if session.recorded is None or ranks().index or not has_world(session.agent):
            return
        with learning_with(Alone()):
            steps = 2 * config.batch * config.length
            found = held_out(session.agent, session.recorded, length=config.length, steps=steps)
        if found:
            self.metrics(at.steps, found)

    def _eval(self, at: Position) -> None:
        config = self.session.config
        scored = self._scored(at, config.eval_episodes)
        if scored is None:
            return
        numbers = {"eval/score": float(np.mean(scored.scores)), "eval/episodes": len(scored.scores)}
        numbers |= {f"eval/{name}": float(np.mean(values)) for name, values in scored.outcomes.items()}
        if has_world(self.session.agent) and key_shown(self.session.envs) is not None:
            found = list(dreams.open_loop_of(self.session).values())
            numbers |= found[0].horizons() if found else {}
            for one in found if len(found) > 1 else ():
                numbers |= one.horizons(key=f"/{one.key}")
        self.metrics(at.steps, numbers)

    def _scored(self, at: Position, episodes: int) -> scoring.Scored | None:
        """An evaluation as the config has it; None where it did not come to its end, of which a sentence tells."""
        session = self.session
        scored = scoring.play(
            session.app,
            session.config,
            session.agent,
            session.envs.protocol,
            episodes=episodes,
            acting=session.config.eval_acting,
            carry=at.carry if scoring.remembers(session.app, session.config) else None,
            go_on=lambda: not self.stopped(),
        )
        if len(scored.episodes) == episodes:
            return scored
        if not self.stopped():
            say(f"no evaluation at step {at.steps:,}: an episode has not ended after {LONGEST:,} steps")
        return None

    def finish(self, at: Position) -> Path | None:
        """The evaluation of the end, where the config has one: its file, LOGDIR/eval/<step>.json."""
        session, config = self.session, self.session.config
        scored = (
            self._scored(at, config.final_episodes)
            if config.task and config.final_episodes and not ranks().index
            else None
        )
        if scored is None:
            return None
        app, protocol = session.app, plain_json(session.envs.protocol)
        remembers = scoring.remembers(app, config)
        found = scoring.result(app, config, at.steps, scored, protocol, remembers=remembers) | {"changed": {}}
        path = session.run.logdir / "eval" / evaluation.file_name(at.steps, scored.acting, {})
        write_json(path, plain_json(found))
        return path

    def _video(self, at: Position) -> None:
        dreams.videos(self.session, at.steps)


def finish(session: Session, watch: Watch, at: Position) -> tuple[Path | None, list[Path]]:
    """Evaluation and videos of a finished run, which is saved. Its own environments are closed first, for a task may have
    room for no others beside them."""
    session.envs.close()
    scored, shown = None, list[Path]()
    with suppress(KeyboardInterrupt):  # told by the caller, as any stop is
        scored = possibly(session, "evaluation at the end", lambda: watch.finish(at))
        if session.config.final_video and not session.stopped():
            shown = possibly(session, "video at the end", lambda: dreams.videos(session, at.steps)) or []
    return scored, shown


def possibly(session: Session, what: str, show: Callable[[], T]) -> T | None:
    """What is only shown ends no run: where it cannot be, a sentence says why."""
    try:
        return show()
    except Exception as error:
        sentence = exhausted(error)
        if not mistaken(session.app, error) and not sentence:
            raise
        alone = isinstance(error, Unmade) and not session.config.exclusive
        way = " (if only one set of them may live at a time, --exclusive True says so)" if alone else ""
        say(f"no {what}: {sentence or error}{way}")
        return None

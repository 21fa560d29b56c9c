"""The law of learning without an environment: from a recording alone, killed and resumed, and held-out losses that disturb nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import torch

from wm_run import checkpoint
from wm_run.app import App
from wm_run.cli import main, parse
from wm_run.config import RunConfig
from wm_run.held_out import held_out
from wm_run.loading import build, runtime, with_world
from wm_run.offline import Made
from wm_run.recorder import Writer
from wm_run.recording import About, Recording
from wm_run.stand_in import MASK, StandIn
from wm_run.testing.differences import compare, compare_runs, rows
from wm_run.testing.nursery import Failed

TINY = ("--preset", "tiny", "--device", "cpu")
UPDATES = 8  # of the law's runs, which save after half of them
KILLED = 6  # the update after which one is killed
RECORDS = 60  # of each stream


def check_data(app: App, place: Path, *options: object) -> Path:
    """Hold an app with a world model to the law on a recording of its preset tiny, made at random in `place`; the folder of
    a run that learned from it. Raises Failed, saying what broke. options: of the runs.

    No environment is made; killed and resumed it is the run that was left alone, and goes on from no other recording; the
    world model alone leaves the behaviour as it was; looking at held-out episodes changes nothing, and gives the same twice.
    """
    words = [*TINY, *map(str, options)]
    if not app.recordings:
        check_refused(app, [*words, "--data", "nowhere"])
        return place
    folder = random_recording(app, place / "recording", words)
    config = runtime(parse(app, ["train", *words]).config)
    steps = max(4, int(UPDATES * config.replayed / config.train_ratio) * Recording.open(folder).repeat)
    every = ["--save-every", steps // 2, "--log-every", steps // 4, "--held-out-every", steps // 4]
    alone = dataclasses.replace(app, environments=_made, fresh=_made)
    begin = ["train", *words, "--data", folder, "--steps", steps, *every, "--final-video", "False"]
    whole, killed = place / "whole", place / "killed"
    _main(alone, [*begin, "--logdir", whole])
    with _killed(KILLED):
        _main(alone, [*begin, "--logdir", killed])
    torch.rand(3)  # another process would begin with other global generators
    _main(alone, ["train", "--logdir", killed])
    if different := [part for part in compare_runs(app.name, whole, killed) if part.differences]:
        differences = "; ".join(line for part in different for line in part.differences[:2])
        raise Failed(f"{app.name} killed while it learned from a recording and resumed differs: {differences}")
    logged = {name for row in rows(whole / "metrics.jsonl") for name in row}
    if not any(name.startswith("held_out/loss/") for name in logged):
        raise Failed(f"a run of {app.name} from a recording logs no held-out losses")
    check_alone(alone, place / "alone", config, folder, begin)
    check_held_out(alone, config, folder)
    return whole


def check_refused(app: App, words: list[str]) -> None:
    """Who learns from its own play alone says so, and looks at no folder."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        main(app, ["train", *words])
    if "leave out --data" not in said.getvalue():
        raise Failed(f"{app.name}, which learns from no recording, says {said.getvalue()!r} of one")


def check_alone(app: App, logdir: Path, config: RunConfig, folder: Path, begin: list[Any]) -> None:
    """With `--behaviour False` the world model learns, and no weight of the behaviour moves."""
    _main(app, [*begin, "--behaviour", "False", "--logdir", logdir])
    path = checkpoint.latest(logdir)
    assert path is not None
    ended, begun = checkpoint.load(path).weights, build(app, config, StandIn(Recording.open(folder))).state_dict()
    moved = {name.partition(".")[0] for name in begun if not torch.equal(begun[name], ended[name])}
    if moved != {"world"}:
        raise Failed(f"{app.name} with --behaviour False moves the weights of {sorted(moved) or 'nothing'}")


def check_held_out(app: App, config: RunConfig, folder: Path) -> None:
    """Held-out losses are the same twice, those of evaluation mode, and leave weights, state, mode and generators as they
    were."""
    envs = StandIn(Recording.open(folder))
    agent = with_world(app, build(app, config, envs))
    agent.train()
    before, modes, measured = _everything(agent), list[bool](), agent.world.measured

    def watched(*given: Any) -> Any:
        modes.append(agent.world.training)
        return measured(*given)

    agent.world.measured = watched  # type: ignore[method-assign, assignment]
    found = [held_out(agent, envs, length=config.length, steps=config.replayed) for _ in range(2)]
    del agent.world.measured  # the class's own again
    if any(modes):
        raise Failed(f"{app.name}'s held-out losses are not those of evaluation mode")
    if found[0] != found[1] or not found[0]:
        raise Failed(f"{app.name}'s held-out losses are {found[0]} and then {found[1]}")
    if odd := compare("agent", before, _everything(agent)).differences:
        raise Failed(f"{app.name}'s held-out losses change the agent: {odd[0]}")


def random_recording(app: App, folder: Path, words: list[str], seed: int = 0) -> Path:
    """RECORDS records of each environment of a run with these options, and a third as many held out, of random actions."""
    config = parse(app, ["train", *words]).config
    with closing(app.part("environments")(config, config.envs)) as envs:
        about = About.of(envs, config.task, config.env)
        writer = Writer(folder, about, streams=dict.fromkeys(("train", "held_out"), envs.num_envs))
        rng = np.random.default_rng(seed)
        for part, count in (("train", RECORDS), ("held_out", RECORDS // 3)):
            step = envs.reset(int(rng.integers(1000)))
            for _ in range(count):
                writer.add(part, step)
                step = envs.step(_random(step, about, rng))
    writer.finish([{"who": "random", "share": 1.0, "steps": RECORDS * envs.num_envs, "seed": seed}])
    return folder


def _random(step: Any, about: About, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One of the actions that are allowed, of each group; anything in [-1, 1] of what is continuous."""
    lead = np.shape(step["reward"])
    liking = rng.random((*lead, about.action.size)) * step.get(MASK, 1)
    ends = np.cumsum(about.action.discrete).astype(int)
    groups = np.split(liking, ends, -1)
    one_hot = [(group == group.max(-1, keepdims=True)) for group in groups[:-1]]
    return np.concatenate([*one_hot, 2 * groups[-1] - 1], -1).astype(np.float32)


def _everything(agent: Any) -> dict[str, Any]:
    weights = {name: value.clone() for name, value in agent.state_dict().items()}
    return {"weights": weights, "state": agent.state(), "training": agent.training, "torch": torch.get_rng_state()}


def _made(config: RunConfig, n: int) -> NoReturn:
    raise Failed("an environment was made by a run that learns from a recording")


class _Kill(BaseException):
    """As SIGKILL: nobody handles it, and nothing is saved."""


@contextmanager
def _killed(update: int) -> Iterator[None]:
    """Runs inside end without a word after that update."""
    real = Made.made_update

    def made(at: Made, repeat: int) -> int:
        if at.made + 1 == update:
            raise _Kill
        return real(at, repeat)

    with mock.patch.object(Made, "made_update", made):
        try:
            yield
        except _Kill:
            return
    raise Failed(f"a run from a recording ends before update {update}")


def _main(app: App, words: list[Any]) -> None:
    main(app, [str(word) for word in words])

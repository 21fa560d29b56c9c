"""Random configurations of every app: each trains a little or is refused in one sentence, and none ends in a traceback.

FUZZ=1000 pytest tests/test_fuzz.py   as many; CI tries a few of each app.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import random
import typing
from pathlib import Path
from typing import Any

import pytest
from wm_run import dreams
from wm_run.cli import main

COUNT = int(os.environ.get("FUZZ", "6"))
TASKS = ("toy:catch", "toy:doors", "toy:doors_image", "gym:CartPole-v1", "gym:Pendulum-v1", "gym:FrozenLake-v1")
TEAMS = ("toy:whisper", "toy:leavers", "toy:doors_team")
APPS = ("dmawm", "dreamer", "mappo", "po_dreamer", "r2i", "storm")
WHOLE = (-2, -1, 0, 1, 2, 3, 4, 5, 8, 16)
REAL = (-1.0, 0.0, 1e-3, 0.3, 1.0, 2.0, 64.0, float("nan"), float("inf"))
FIXED = {"steps", "task", "device", "devices", "log", "init_from", "tensorboard", "threads", "workers"}
ALIKE = {"mappo": {"envs", "batch", "train_ratio"}}  # one of them alone is refused nearly always


def words(app: str, source: random.Random) -> list[str]:
    """A command line with one to four fields of random values."""
    made = importlib.import_module(f"{app}.cli").APP
    config, tasks = made.config, {"none": TASKS, "only": TEAMS, "too": TASKS + TEAMS}[made.teams]
    kinds = typing.get_type_hints(config)
    fixed = FIXED | ALIKE.get(app, set())
    names = [field.name for field in dataclasses.fields(config) if field.name not in fixed]
    found = ["train", "--preset", "tiny", "--device", "cpu", "--task", source.choice(tasks), "--steps", "24"]
    found += ["--learning-starts", "8", "--workers", "0"]
    for name in source.sample(names, source.randint(1, 4)):
        kind = kinds[name]
        flag = f"--{name.replace('_', '-')}"
        if kind is bool:
            found.append(source.choice((flag, f"--no-{flag[2:]}")))
        elif kind in (int, float):
            found.append(f"{flag}={source.choice(WHOLE if kind is int else REAL)}")
        else:
            found.append(f"{flag}={source.choice((*typing.get_args(kind), 'nonsense'))}")
    return found


@pytest.mark.parametrize("app", APPS)
def test_no_configuration_ends_in_a_traceback(
    app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dreams, "videos", lambda *_: [])  # films are no part of a configuration
    source, trained = random.Random(0), 0
    for i in range(5 * COUNT):
        if i >= COUNT and trained:  # by chance all of the first few may be refused
            break
        line = [*words(app, source), "--logdir", str(tmp_path / str(i))]
        try:
            main(importlib.import_module(f"{app}.cli").APP, line)
            trained += 1
        except SystemExit as end:
            said = capsys.readouterr().err.strip().splitlines()
            told = any(sentence.startswith(f"{app}: ") for sentence in said)
            assert end.code in (1, 2) and told, (line, said)
        except Exception as error:
            raise AssertionError(f"{' '.join(line)}: {type(error).__name__}: {error}") from error
    assert trained or COUNT < 6
    print(f"{app}: {trained} of {i} trained")


def test_the_values_are_of_every_kind() -> None:
    source: Any = random.Random(1)
    many = {word for _ in range(1000) for word in words("dreamer", source)}
    assert "--lr=nan" in many and "--batch=0" in many and "--protocol=nonsense" in many

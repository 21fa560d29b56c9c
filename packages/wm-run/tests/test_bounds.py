"""What a field's type says of its numbers, against a table made by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import pytest
from wm_core.errors import UserError
from wm_run.bounds import Bounds, Count, LastSteps, Layers, Norm, Rate, RowLength, Share, check_bounds
from wm_run.config import CHANCE, MACHINE, TRAINING, Machine, RunConfig, Training, marked, resumable
from wm_run.evaluation import changed, stem


@dataclass(frozen=True)
class Numbers:
    plain: float = 0.0
    count: Count = 1
    share: Share = 0.0
    rate: Rate = 0.0
    row: RowLength = 2
    last: LastSteps = 0
    layers: Layers = 1
    norm: Norm = 1.0
    none: float | None = None
    flag: bool = False
    absorbing: int = 0  # an app may allow 0
    maybe: Annotated[int, Bounds(least=-1)] | None = None


@pytest.mark.parametrize(
    "name, fits, refused",
    [
        ("plain", (0, 0.5, 1e9), (-1e-9, float("nan"), float("inf"))),
        ("count", (1, 2**40), (0, -1)),
        ("share", (0, 0.999), (1, -0.1, float("nan"))),
        ("rate", (0, 1), (1.001, -0.1, float("nan"))),
        ("row", (2, 64), (1, 0, -3)),
        ("last", (0, 2, 64), (1, -1)),
        ("layers", (1, 1000), (0, 1001)),
        ("norm", (1e-9, 1e9), (0.0, -1.0, float("inf"))),
        ("none", (None, 3.0), (-1.0,)),
        ("flag", (True, False), ()),
        ("absorbing", (0, 16), (-1,)),
        ("maybe", (None, -1, 0), (-2,)),
    ],
)
def test_bounds(name: str, fits: tuple[Any, ...], refused: tuple[Any, ...]) -> None:
    for value in fits:
        check_bounds(Numbers(**{name: value}))
    for value in refused:
        with pytest.raises(UserError, match=f"^{name} .*, not {value}"):
            check_bounds(Numbers(**{name: value}))


@pytest.mark.parametrize(
    "name, fits, refused",
    [
        ("workers", (-1, 0, 8), (-2,)),
        ("act_temperature", (0.01, 1.0), (0.0, -1.0)),
        ("seed", (0, 2**62 - 1), (-1, 2**62)),
        ("timeout", (0.0, 600.0), (-1.0,)),
        *(
            (name, (1,), (0,))
            for name in ("devices", "envs", "attempts", "batch", "chunk", "log_every", "save_every", "keep")
        ),
        *((name, (0,), (-1,)) for name in ("milestone_every", "eval_every", "eval_envs", "final_episodes", "threads")),
    ],
)
def test_a_runs_own_numbers(name: str, fits: tuple[Any, ...], refused: tuple[Any, ...]) -> None:
    for value in fits:
        check_bounds(RunConfig(**{name: value}))
    for value in refused:
        with pytest.raises(UserError, match=f"^{name} "):
            check_bounds(RunConfig(**{name: value}))


def test_a_default_of_its_own_takes_nothing_from_a_field() -> None:
    @dataclass(frozen=True)
    class Config(RunConfig):
        envs: int = 8
        steps: int = 10
        batch: Annotated[int, Bounds(least=0)] = 4

    check_bounds(Config(batch=0))  # its own bounds go before its parent's
    for name, value in (("envs", 0), ("batch", -1), ("steps", -1)):
        with pytest.raises(UserError, match=f"^{name} must be at least"):
            check_bounds(Config(**{name: value}))
    assert resumable(Config) == resumable(RunConfig)


def test_every_field_says_what_it_is_for() -> None:
    """By hand: what an evaluation never reads, where a run ran, and which episodes were drawn."""
    training = (
        "steps devices batch length train_ratio ratio_counts online_stride learning_starts first_updates act_temperature "
        "replay_bytes chunk log_every save_every keep milestone_every init_from eval_every eval_episodes eval_acting "
        "final_episodes video_every final_video restore exclusive tensorboard log behaviour data_checksum held_out_every"
    )
    assert set(marked(RunConfig, TRAINING)) == set(training.split())
    assert set(marked(RunConfig, MACHINE)) == {"device", "capture", "threads", "workers", "timeout", "attempts", "data"}
    assert set(marked(RunConfig, CHANCE)) == {"seed", "envs", "eval_envs"}


def test_fields_of_a_method_say_what_an_evaluation_may_change() -> None:
    @dataclass(frozen=True)
    class Method(RunConfig):
        warmup: Training[int] = 4
        cache: Machine[bool] = False
        batch: int = 8  # another default, and still for training

    assert (
        changed(Method(), Method(cache=True)) == {"cache": True} and stem(4, "sample", {"cache": True}, Method) == "4"
    )
    for field, value in {"warmup": 5, "batch": 4}.items():
        with pytest.raises(UserError, match=f"--{field} is for training"):
            changed(Method(), replace(Method(), **{field: value}))


def test_what_does_not_count_in_acting_is_the_runs_own() -> None:
    @dataclass(frozen=True)
    class Method(RunConfig):
        horizon: int = 15
        temperature: float = 1.0
        cache: Machine[bool] = False

    allowed = {"temperature": 2.0, "cache": True, "seed": 3, "device": "cpu"}
    assert changed(Method(), replace(Method(), **allowed), "play", ("temperature",)) == allowed
    with pytest.raises(UserError, match="`play` takes --horizon from the run in LOGDIR: leave it out"):
        changed(Method(), replace(Method(), horizon=7), "play", ("temperature",))
    assert changed(None, replace(Method(), horizon=7), "play", ("temperature",)) == {}

"""Recorded calls: the same results as plain ones, and a way back wherever recording fails."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wm_core import draws
from wm_core.dispatched import Dispatched
from wm_core.fast.capture import WARMUP, Captured, due
from wm_core.fast.compiled import compile_parts
from wm_core.testing import assert_same


class Learner:
    """A step of gradient descent with noise, momentum, a counter and an entry that no number hides: what an update is."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3))
        self.moment, self.count = torch.zeros(2, 3), torch.zeros((), dtype=torch.int64)
        self.source = draws.Generator(0)
        self.calls = 0

    def state(self) -> list[Tensor]:
        return [self.weight, self.moment, self.count]

    def generators(self) -> list[torch.Generator]:
        return [self.source.generator]

    def update(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        self.calls += 1
        with draws.drawing(self.source):
            noise = draws.normal((2, 3))
        loss = ((batch["x"] @ self.weight + noise.sum(0)) - batch["y"]).square().mean()
        (gradient,) = torch.autograd.grad(loss, self.weight)
        with torch.no_grad():
            self.moment.lerp_(gradient, 0.5)
            self.weight -= 0.1 * self.moment
            self.count += 1
        return {"loss": loss.detach(), "count": self.count.clone(), "norm": gradient.norm()}, noise

    def all(self) -> Any:
        return [[one.detach().clone() for one in self.state()], self.generators()[0].get_state()]


def batches(n: int, rows: int = 4) -> list[dict[str, Tensor]]:
    source = torch.Generator().manual_seed(1)
    return [
        {"x": torch.randn(rows, 2, generator=source), "y": torch.randn(rows, 3, generator=source)} for _ in range(n)
    ]


def captured(learner: Learner, recorder: Any, **options: Any) -> tuple[Captured, list[str]]:
    said: list[str] = []
    options = {
        "state": learner.state,
        "generators": learner.generators,
        "name": "the update",
        "say": said.append,
    } | options
    return Captured(learner.update, recorder, **options), said


def assert_as_plain(run: Any, learner: Learner, plan: list[dict[str, Tensor]]) -> None:
    """The same results and the same state after every call as by plain calls; what was given stays as it was given."""
    plain, given, expected = Learner(), [], []
    for batch in plan:
        expected.append(plain.update(batch))
        expected[-1] = ({name: value.clone() for name, value in expected[-1][0].items()}, expected[-1][1])
        given.append(run(batch))
        assert_same(learner.all(), plain.all())
    assert_same(given, expected)


def test_recorded_calls_are_the_plain_ones() -> None:
    learner = Learner()
    recorder = Dispatched()
    run, said = captured(learner, recorder)
    assert_as_plain(run, learner, batches(10))
    assert recorder.replays == 10 - WARMUP and said == []  # the first of them, and the next two, are compared
    assert run.recorded is not None


def test_inputs_may_be_used_again_by_the_caller() -> None:
    """A recording reads tensors of its own."""
    run = Captured(lambda x: x + 1, Dispatched())
    x = torch.zeros(2)
    for i in range(WARMUP + 3):
        assert run(x.fill_(i)).tolist() == [i + 1] * 2
    assert run.recorded is not None and all(fixed is not x for fixed in run.recorded.fixed)


def test_other_shapes_are_plain_until_they_stay() -> None:
    learner = Learner()
    recorder = Dispatched()
    run, _ = captured(learner, recorder)
    few, many = batches(WARMUP + 2), batches(WARMUP + 3, rows=5)
    assert_as_plain(run, learner, [*few, many[0], few[0], *many, *few])
    # the last of `few` twice, once in between, the last three of `many`, the last of `few` twice
    assert recorder.replays == 2 + 1 + 3 + 2


def test_another_generator_is_not_the_one_recorded() -> None:
    """As an evaluation has in the middle of training: it must neither draw from the run's nor change it."""
    learner, plain = Learner(), Learner()
    run, _ = captured(learner, Dispatched())
    for batch in batches(WARMUP + 2):
        run(batch), plain.update(batch)
    other, same = draws.Generator(7), draws.Generator(7)
    learner.source, kept = other, learner.source
    plain.source, mine = same, plain.source
    batch = batches(1)[0]
    assert_same(run(batch)[1], plain.update(batch)[1])
    assert torch.equal(kept.generator.get_state(), mine.generator.get_state())


class Broken(Dispatched):
    """Fails where it is told to."""

    def __init__(self, learner: Learner, where: str) -> None:
        super().__init__()
        self.where, self.learner = where, learner

    def warm(self, call: Any) -> Any:
        if self.where == "warm":
            raise RuntimeError("no stream\nof many lines")
        return super().warm(call)

    def record(self, call: Any, generators: Any) -> Any:
        if self.where == "record":
            with contextlib.suppress(RuntimeError):
                call()
            raise RuntimeError("operation not permitted when stream is capturing\nof many lines")
        given, replay = super().record(call, generators)
        if self.where == "replay":
            raise_ = RuntimeError("out of memory")

            def replay() -> None:
                self.learner.weight.data.fill_(7)
                raise raise_

        if self.where == "nothing":
            return given, lambda: None
        if self.where == "stale":
            numbers = [one.clone() for one in given if isinstance(one, Tensor)]

            def replay(right: Any = replay) -> None:
                right()
                for one, old in zip([one for one in given if isinstance(one, Tensor)], numbers, strict=True):
                    one.copy_(old * 2 + 1)

        if self.where == "weights":

            def replay(right: Any = replay) -> None:
                right()
                self.learner.weight.data.add_(1)

        if self.where == "counter":

            def replay(right: Any = replay) -> None:
                right()
                self.learner.count += 1

        if self.where == "nan":

            def replay(right: Any = replay) -> None:
                right()
                self.learner.moment.fill_(torch.nan)

        return given, replay


WHY = {
    "warm": "the update cannot be made ready for recording (RuntimeError: no stream)",
    "record": "the update cannot be recorded as one graph (RuntimeError: operation not permitted when stream is capturing)",
    "replay": "the update cannot be recorded as one graph (RuntimeError: out of memory)",
}


@pytest.mark.parametrize("where", ["warm", "record", "replay", "nothing", "stale", "weights", "counter", "nan"])
def test_what_cannot_be_recorded_goes_on_plain_and_says_so_once(where: str) -> None:
    learner, then = Learner(), []
    run, said = captured(learner, Broken(learner, where), otherwise=lambda: then.append(learner.calls))
    assert_as_plain(run, learner, batches(WARMUP + 4))
    why = WHY.get(where, "the update does something else when recorded as one graph: ")
    assert len(said) == 1 and said[0].startswith(why) and said[0].endswith("; it goes on without")
    assert len(then) == 1 and run.recorded is None


def test_an_update_that_fails_is_not_made_again() -> None:
    """Half of it may have been made."""
    learner = Learner()
    run, said = captured(learner, Dispatched())
    with pytest.raises(RuntimeError, match="shape"):
        run({"x": torch.zeros(4, 9), "y": torch.zeros(4, 3)})
    assert learner.calls == 1 and said == []


def test_numbers_stay_in_their_places() -> None:
    """0-d float32 results travel together, others alone."""

    def call(x: Tensor) -> Any:
        return {"a": x.sum(), "b": [x, x.sum().double(), 3, None], "c": x.max(), "d": (x > 0).sum()}

    run = Captured(call, Dispatched())
    for i in range(WARMUP + 2):
        assert_same(run(torch.arange(3.0) + i), call(torch.arange(3.0) + i))
    assert run.recorded is not None


class Noisy(Dispatched):
    """Sums on a GPU come in no fixed order: weights are off by chance, by that share of what an update moves them."""

    def __init__(self, learner: Learner, share: float) -> None:
        super().__init__()
        self.learner, self.share, self.source = learner, share, torch.Generator().manual_seed(0)

    def record(self, call: Any, generators: Any) -> Any:
        given, replay = super().record(call, generators)

        def off() -> None:
            before = self.learner.weight.detach().clone()
            replay()
            with torch.no_grad():
                way = self.learner.weight - before
                self.learner.weight += self.share * way.abs().mean() * torch.randn(2, 3, generator=self.source)

        return given, off


@pytest.mark.parametrize("share", [1e-4, 0.03])
def test_noise_is_no_reason_to_refuse(share: float) -> None:
    """Also where it is larger than rounding: then a recording differs from itself as it does from the plain call."""
    learner = Learner()
    run, said = captured(learner, Noisy(learner, share))
    for batch in batches(WARMUP + 12):
        run(batch)
    assert said == [] and run.recorded is not None


class Scheduled(Learner):
    """With a number that the host counts, where no graph can see it change."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.factor = where, 1.0

    def update(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        before = self.weight.detach().clone()
        metrics, noise = super().update(batch)
        if self.where == "loss":
            metrics["loss"] = metrics["loss"] * self.factor
        if self.where == "weight":
            with torch.no_grad():
                self.weight.copy_(before + self.factor * (self.weight - before))
        return metrics, noise


@pytest.mark.parametrize("where", ["loss", "weight"])
@pytest.mark.parametrize(("fall", "calls"), [(0.01, WARMUP + 2), (0.001, WARMUP + 3), (0.0005, WARMUP + 11)])
def test_a_schedule_of_the_host_is_refused(where: str, fall: float, calls: int) -> None:
    """Counted beside the calls, as in `learn`. One of 1% is found at the second call of the recording, a slower one later."""
    learner, plain = Scheduled(where), Scheduled(where)
    run, said = captured(learner, Dispatched())
    for i, batch in enumerate(batches(calls)):
        learner.factor = plain.factor = (1 - fall) ** i
        found, expected = run(batch), plain.update(batch)
        if fall == 0.01:  # what differed was never given
            assert_same(found, expected)
        if run.plain:
            break
    assert len(said) == 1 and said[0].startswith("the update does something else when recorded as one graph"), said
    assert ("['loss'] differs by" if where == "loss" else "entry 0 of the state differs by") in said[0]
    assert fall < 0.01 or i == WARMUP + 1


def test_a_schedule_inside_the_call_is_refused_and_under_noise_too() -> None:
    class Counting(Scheduled):
        def update(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
            self.factor *= 0.99
            return super().update(batch)

    for recorder in (lambda learner: Dispatched(), lambda learner: Noisy(learner, 1e-3)):
        learner = Counting("weight")
        run, said = captured(learner, recorder(learner))
        for batch in batches(WARMUP + 4):
            run(batch)
        assert len(said) == 1 and run.plain


def test_comparisons_come_at_ever_longer_distances_and_change_nothing() -> None:
    learner, recorder = Learner(), Dispatched()
    run, said = captured(learner, recorder)
    assert_as_plain(run, learner, batches(WARMUP + 14))
    compared = 1 + sum(map(due, range(1, 14)))
    assert (compared, learner.calls) == (4, WARMUP + compared + 1)  # once more to record
    assert recorder.replays == 14 and said == []


def test_where_memory_does_not_hold_both_the_recording_goes_on_alone() -> None:
    class Full(Dispatched):
        def warm(self, call: Any) -> Any:
            given = call()
            if self.replays:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return given

    learner = Learner()
    run, said = captured(learner, Full())
    assert_as_plain(run, learner, batches(WARMUP + 4))
    assert said == ["the update is not compared with its recording any more: memory does not hold both"]
    assert run.recorded is not None


def test_what_cannot_be_compiled_stays_as_it_is() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * len(list(range(int(x.sum()))))

    def refuse(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no")

    odd, layer, x = Odd(), nn.Linear(3, 2), torch.ones(3)
    expected, names = layer(x), layer.state_dict().keys()
    compile_parts([(odd, "forward"), (layer, "forward")], refuse)
    assert odd(x).tolist() == [3, 3, 3]
    assert torch.equal(layer(x), expected) and layer.state_dict().keys() == names

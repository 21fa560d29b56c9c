"""tools/bench.py counts what an update does: the same every time, one more for one more call, views never."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = pathlib.Path(__file__).resolve().parents[1]
OPTIONS = ["--preset", "tiny", "--task", "toy:catch", "--device", "cpu"]
NUMBERS = {"cpu_s", "wall_s", "peak_mb", "flops", "aten_calls", "aten_views", "parameters"}
ABOUT = {"command", "app", "task", "hardware", "torch", "threads", "precision", "device", "commit", "config"}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench", ROOT / "tools" / "bench.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench: Any = load()


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the command prints, in a process of its own."""
    command = [sys.executable, "tools/bench.py", "update", "--app", "dreamer", *OPTIONS, "--json", "--repeat", "1"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def made() -> Any:
    """An agent and a batch, in this process."""
    case = bench.prepare("dreamer", OPTIONS)
    return case.agent, bench.batch_of(case)


def calls(run: Callable[[], object]) -> dict[str, int]:
    return {name.removeprefix("aten::"): n for name, n in bench.count(run)[0].by_name.items()}


def test_one_object_with_every_number(told: dict[str, Any]) -> None:
    assert NUMBERS | ABOUT <= told.keys()
    assert all(told[name] > 0 for name in NUMBERS)
    assert (told["app"], told["task"], told["threads"]) == ("dreamer", "toy:catch", 1)
    assert told["config"]["batch"] == 2 and told["hardware"]["cores"] >= 1


def test_counts_are_the_same_in_every_process_and_at_every_update(told: dict[str, Any], made: Any) -> None:
    agent, batch = made
    for _ in range(2):
        counted, flops = bench.count(lambda: agent.update(batch))
        assert (counted.computing, counted.other, flops) == (told["aten_calls"], told["aten_views"], told["flops"])


def test_one_more_call_counts_one_more(told: dict[str, Any], made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch = made
    follow = agent.behaviour.follow
    monkeypatch.setattr(agent.behaviour, "follow", lambda: (follow(), torch.zeros(3)))
    assert bench.count(lambda: agent.update(batch))[0].computing == told["aten_calls"] + 1


def test_a_call_planted_in_the_backward_pass_counts(
    told: dict[str, Any], made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0] * 1.0

    agent, batch = made
    step = agent.optimiser.step
    monkeypatch.setattr(agent.optimiser, "step", lambda loss: step(Twice.apply(loss)))
    assert bench.count(lambda: agent.update(batch))[0].computing == told["aten_calls"] + 1


def test_most_flops_are_of_the_backward_pass(told: dict[str, Any], made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch = made
    monkeypatch.setattr(agent.optimiser, "step", lambda loss: {})
    forward = bench.count(lambda: agent.update(batch))[1]
    assert 0 < forward < told["flops"] < 4 * forward


def test_foreach_counts_one_in_place_too() -> None:
    many = [torch.ones(2) for _ in range(5)]
    assert calls(lambda: torch._foreach_mul_(many, 2.0)) == {"_foreach_mul_": 1}
    assert all((one == 2).all() for one in many)  # it was run, once


def test_views_and_metadata_do_not_count() -> None:
    x = torch.ones(2, 3)
    assert calls(lambda: (x.view(6), x.T, x[0], x.unbind(0), x.split(1), x.detach(), x.shape, x.expand(4, 2, 3))) == {}
    assert calls(lambda: (x.unsqueeze_(0), x.squeeze_(0))) == {}


def test_what_compound_calls_and_kernels_are_counted_as() -> None:
    x, w = torch.ones(2, 3), torch.ones(4, 3)
    assert calls(lambda: torch.nn.functional.linear(x, w)) == {"mm": 1}
    with torch.inference_mode():  # there they reach the dispatcher whole
        assert calls(lambda: torch.nn.functional.linear(x, w)) == {"mm": 1}
    grown = torch.ones(3, requires_grad=True)
    y = torch.nn.functional.silu(grown).sum()
    assert calls(lambda: torch.autograd.grad(y, grown)) == {
        "ones_like": 1,
        "silu_backward": 1,
    }  # one kernel, not its maths


def test_calls_inside_our_own_operators_count() -> None:
    @torch.library.custom_op("bench_test::twice_and_one", mutates_args=())
    def twice_and_one(x: Tensor) -> Tensor:
        return x @ x * 2 + 1

    @torch.library.custom_op("bench_test::outside", mutates_args=())
    def outside(x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() * 2)

    counted, flops = bench.count(lambda: twice_and_one(torch.eye(3)))
    assert dict(counted.by_name) == {"aten::eye": 1, "aten::mm": 1, "aten::mul": 1, "aten::add": 1}
    assert flops == 2 * 3**3
    x = torch.ones(3)
    assert calls(lambda: outside(x)) == {"bench_test::outside": 1}


def test_compiled_code_is_counted_eagerly() -> None:
    compiled = torch.compile(lambda x: (x * 2 + 1).sin(), backend="eager")
    x = torch.ones(3)
    assert calls(lambda: compiled(x)) == {"mul": 1, "add": 1, "sin": 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--app", "nothing"], "no app 'nothing'"),
        (["--preset", "tinny"], "did you mean 'tiny'"),
        (["--preset", "tiny", "--task", "toy:nothing"], "toy:nothing"),
        (["--preset", "tiny", "--bacth", "3"], "--batch"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "update", *options])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == 2 and words in capsys.readouterr().err.splitlines()[-1]

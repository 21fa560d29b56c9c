"""tools/bench.py counts what an update does: the same every time, one more for one more call, views never; and times it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import bench
import bench_app
import bench_calls
import bench_floor
import bench_loop
import bench_parts
import bench_scaling
import bench_turns

OPTIONS = ["--preset", "tiny", "--task", "toy:catch", "--device", "cpu"]
NUMBERS = {"cpu_s", "wall_s", "peak_mb", "flops", "aten_calls", "aten_views", "parameters"}
ABOUT = {"command", "app", "task", "hardware", "torch", "threads", "precision", "device", "commit", "config"}


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
    case = bench_app.prepare("dreamer", OPTIONS)
    return case.agent, bench_app.batch_of(case)


def calls(run: Callable[[], object]) -> dict[str, int]:
    return {name.removeprefix("aten::"): n for name, n in bench_calls.count(run)[0].by_name.items()}


def test_one_object_with_every_number(told: dict[str, Any]) -> None:
    assert NUMBERS | ABOUT <= told.keys()
    assert all(told[name] > 0 for name in NUMBERS)
    assert (told["app"], told["task"], told["threads"]) == ("dreamer", "toy:catch", 1)
    assert told["config"]["batch"] == 2 and told["hardware"]["cores"] >= 1


def test_counts_are_the_same_in_every_process_and_at_every_update(told: dict[str, Any], made: Any) -> None:
    agent, batch = made
    for _ in range(2):
        counted, flops = bench_calls.count(lambda: agent.update(batch))
        assert (counted.computing, counted.other, flops) == (told["aten_calls"], told["aten_views"], told["flops"])


def test_one_more_call_counts_one_more(told: dict[str, Any], made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch = made
    follow = agent.behaviour.follow
    monkeypatch.setattr(agent.behaviour, "follow", lambda: (follow(), torch.zeros(3)))
    assert bench_calls.count(lambda: agent.update(batch))[0].computing == told["aten_calls"] + 1


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
    assert bench_calls.count(lambda: agent.update(batch))[0].computing == told["aten_calls"] + 1


def test_most_flops_are_of_the_backward_pass(told: dict[str, Any], made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch = made
    monkeypatch.setattr(agent.optimiser, "step", lambda loss: {})
    forward = bench_calls.count(lambda: agent.update(batch))[1]
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

    counted, flops = bench_calls.count(lambda: twice_and_one(torch.eye(3)))
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


def test_every_call_and_flop_belongs_to_one_part(made: Any) -> None:
    agent, _ = made
    replay = bench_app.fill(bench_app.prepare("dreamer", OPTIONS))
    spent, products = bench_parts.counted(agent, replay)
    whole, flops = bench_calls.count(lambda: agent.learn(replay))
    assert sum(int(row[0]) for row in spent.values()) == whole.computing
    assert sum(int(row[1]) for row in spent.values()) == flops == sum(one.flops for one in products)
    assert sum(int(row[2]) for row in spent.values()) == whole.bytes > 0


def test_backward_belongs_to_whose_forward_it_follows(made: Any) -> None:
    agent, _ = made
    replay = bench_app.fill(bench_app.prepare("dreamer", OPTIONS))
    spent, products = bench_parts.counted(agent, replay)
    convolutions = {one.part for one in products if "convolution_backward" in str(one.func)}
    assert convolutions == {("encoder", True), ("decoder", True)}
    assert {one.part for one in products if str(one.func).startswith("aten.convolution.")} == {
        ("encoder", False),
        ("decoder", False),
    }
    flops = {key: row[1] for key, row in spent.items()}
    decoder = bench_parts.Key("decoder", backward=False)
    assert flops[decoder] < flops[decoder._replace(backward=True)] <= 2 * flops[decoder]
    assert ("imagination", True) not in flops and spent[bench_parts.Key("imagination", backward=False)][1] > 0


def test_measuring_parts_leaves_the_agent_as_it_was(made: Any) -> None:
    agent, _ = made
    before = {name: set(vars(module)) for name, module in agent.named_modules()}
    replay = bench_app.fill(bench_app.prepare("dreamer", OPTIONS))
    parts = bench_parts.measure(agent, replay, repeat=1)
    assert {name: set(vars(module)) for name, module in agent.named_modules()} == before
    assert torch.autograd.grad.__module__ == "torch.autograd"
    assert all(part.cpu_s >= 0 for part in parts.values())
    table = bench_parts.part_table(parts, bench_floor.Machine(1e9, 0, 2e9, 1e9))
    assert table.splitlines()[-1].startswith("| all |") and "| encoder |" in table


def test_the_products_are_made_again_at_their_shapes() -> None:
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    w = torch.randn(4, 3, 5, 5, requires_grad=True)

    def run() -> None:
        y = torch.nn.functional.conv2d(x, w, padding=2)
        torch.autograd.grad((y.flatten(1) @ torch.ones(256, 2).t().t() + 1).sum(), w)

    with bench_floor.Products() as seen:
        run()
    replay = bench_floor.Replayed(seen.calls)
    with bench_floor.Products() as again, bench_calls.Calls() as calls:
        replay()
    assert [one[:4] for one in again.calls] == [one[:4] for one in seen.calls]
    assert calls.computing == len(seen.calls) == 4 and calls.other == 0


@pytest.mark.parametrize(("apart", "expected"), [(False, "ab" + 3 * "ab"), (True, 3 * "aabb")])
def test_in_turn_means_one_update_of_each_in_every_round(tmp_path: pathlib.Path, apart: bool, expected: str) -> None:
    order = tmp_path / "order"
    players = [
        [sys.executable, "-c", PLAYER.format(path=str(ROOT / "tools"), name=name, order=str(order), sleep=sleep)]
        for name, sleep in (("a", 0.0), ("b", 0.05))
    ]
    played = bench_turns.play(players, 3, lambda _: None, apart=apart)
    assert order.read_text() == expected  # each warms up once, and once a turn where it starts anew
    assert [len(one["rows"]) for one in played] == [3, 3] and played[1]["about"]["size"] == 7
    assert all(row["wall_s"] >= 0.05 > row["cpu_s"] and row["peak_mb"] > 1 for row in played[1]["rows"])
    assert bench_turns.compare(played)[1]["ratio_wall_s"]["greatest"] < 1
    assert "b" in bench_turns.against_table(played).splitlines()[-1]


PLAYER = """
import sys, time; sys.path.insert(0, {path!r})
from bench_turns import serve
def run():
    time.sleep({sleep}); open({order!r}, "a").write({name!r})
print("a line for people")
serve({name!r}, run, size=7)
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "ended"),
        ("print('{')", "not JSON"),
        ("print('{}', flush=True); input(); print('{\"cpu_s\": 1}', flush=True); input()", "peak_mb, wall_s"),
        ("print('{}', flush=True)", "ended"),
    ],
)
def test_an_opponent_outside_the_protocol_is_one_sentence(code: str, words: str) -> None:
    with pytest.raises(bench_turns.TurnError, match=words):
        bench_turns.play([[sys.executable, "-c", code]], 2, lambda _: None)


def test_ours_and_its_products_keep_to_the_protocol() -> None:
    played = bench_turns.play(
        [[sys.executable, "tools/bench.py", command, *OPTIONS, "--warmup", "0"] for command in ("serve", "floor")],
        1,
        lambda _: None,
    )
    assert [one["name"] for one in played] == ["dreamer 2x8", "products of dreamer 2x8"]
    assert played[1]["about"]["flops"] > 0


def test_an_option_with_several_values_is_the_axis(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "rows.jsonl"
    table = bench_scaling.run("dreamer", [*OPTIONS, "--length", "4", "8"], rounds=1, out=str(out))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["axis"], row["value"], row["length"]) for row in rows] == [("length", "4", 4), ("length", "8", 8)]
    assert 1.5 < rows[1]["flops"] / rows[0]["flops"] < 2.5
    assert (tmp_path / "rows.png").stat().st_size > 1000 and table.count("| length |") == 2


def test_the_loop_names_the_emulators_share() -> None:
    row = bench_loop.measure("dreamer", OPTIONS, 3, steps=4, rounds=2)
    assert 0 < row["share_cpu"] < 1 and row["envs"] == 3
    parts = row["parts_cpu_s"]
    assert parts["agent"] > parts["environments"] and row["steps_per_cpu_s"] < row["alone_per_cpu_s"]


def test_images_take_the_side_that_is_asked_for() -> None:
    case = bench_app.prepare("dreamer", OPTIONS, image=32)
    assert bench_app.batch_of(case).steps["image"].shape[2:] == (32, 32, 3)

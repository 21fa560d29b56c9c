"""tools/bench counts what an update does: the same every time, one more for one more call, views never; and times it."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from env_adapters.actions import ActionSpec
from env_adapters.smax_program import Program
from torch import Tensor

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from bench import calls, cases, commands, length, parts, products, scaling, smax, turns, update
from bench.rows import Picture, keep, read, table

OPTIONS = ["--preset", "tiny", "--task", "toy:catch", "--device", "cpu"]
NUMBERS = {"cpu_s", "wall_s", "peak_mb", "flops", "aten_calls", "aten_views", "parameters"}
ABOUT = {"rounds", "app", "task", "hardware", "torch", "threads", "precision", "device", "commit", "config"}


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the command prints, in a process of its own."""
    command = [sys.executable, "tools/bench", "update", "--app", "dreamer", *OPTIONS, "--json", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def made() -> Any:
    """An agent and a batch, in this process."""
    case = cases.prepare("dreamer", OPTIONS)
    return case.agent, cases.batches_of(case)[0]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """The rows that a command prints, in this process."""

    def run(*words: str) -> list[dict[str, Any]]:
        commands.main([*words, "--json"])
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def names(run: Callable[[], object]) -> dict[str, int]:
    return {name.removeprefix("aten::"): n for name, n in calls.count(run).by_name.items()}


def test_one_object_with_every_number(told: dict[str, Any]) -> None:
    assert NUMBERS | ABOUT <= told.keys()
    assert all(told[name] > 0 for name in NUMBERS)
    assert (told["app"], told["task"], told["threads"]) == ("dreamer", "toy:catch", 1)
    assert told["config"]["batch"] == 2 and told["hardware"]["cores"] >= 1


def test_counts_are_the_same_in_every_process_and_at_every_update(told: dict[str, Any], made: Any) -> None:
    agent, batch = made
    for _ in range(2):
        counted = calls.count(lambda: agent.update(batch))
        assert (counted.computing, counted.other, counted.flops) == (
            told["aten_calls"],
            told["aten_views"],
            told["flops"],
        )


def test_one_more_call_counts_one_more(told: dict[str, Any], made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch = made
    follow = agent.behaviour.follow
    monkeypatch.setattr(agent.behaviour, "follow", lambda: (follow(), torch.zeros(3)))
    assert calls.count(lambda: agent.update(batch)).computing == told["aten_calls"] + 1


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
    assert calls.count(lambda: agent.update(batch)).computing == told["aten_calls"] + 1


def test_most_flops_are_of_the_backward_pass(told: dict[str, Any], made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch = made
    monkeypatch.setattr(agent.optimiser, "step", lambda loss: {})
    forward = calls.count(lambda: agent.update(batch)).flops
    assert 0 < forward < told["flops"] < 4 * forward


def test_foreach_counts_one_in_place_too() -> None:
    many = [torch.ones(2) for _ in range(5)]
    assert names(lambda: torch._foreach_mul_(many, 2.0)) == {"_foreach_mul_": 1}
    assert all((one == 2).all() for one in many)  # it was run, once


def test_views_and_metadata_do_not_count() -> None:
    x = torch.ones(2, 3)
    assert names(lambda: (x.view(6), x.T, x[0], x.unbind(0), x.split(1), x.detach(), x.shape, x.expand(4, 2, 3))) == {}
    assert names(lambda: (x.unsqueeze_(0), x.squeeze_(0))) == {}


def test_what_compound_calls_and_kernels_are_counted_as() -> None:
    x, w = torch.ones(2, 3), torch.ones(4, 3)
    assert names(lambda: torch.nn.functional.linear(x, w)) == {"mm": 1}
    with torch.inference_mode():  # there they reach the dispatcher whole
        assert names(lambda: torch.nn.functional.linear(x, w)) == {"mm": 1}
    grown = torch.ones(3, requires_grad=True)
    y = torch.nn.functional.silu(grown).sum()
    assert names(lambda: torch.autograd.grad(y, grown)) == {
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

    counted = calls.count(lambda: twice_and_one(torch.eye(3)))
    assert dict(counted.by_name) == {"aten::eye": 1, "aten::mm": 1, "aten::mul": 1, "aten::add": 1}
    assert counted.flops == 2 * 3**3
    x = torch.ones(3)
    assert names(lambda: outside(x)) == {"bench_test::outside": 1}


def test_compiled_code_is_counted_eagerly() -> None:
    compiled = torch.compile(lambda x: (x * 2 + 1).sin(), backend="eager")
    x = torch.ones(3)
    assert names(lambda: compiled(x)) == {"mul": 1, "add": 1, "sin": 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--app", "nothing"], "no app 'nothing'"),
        (["--preset", "tinny"], "did you mean 'tiny'"),
        (["--preset", "tiny", "--task", "toy:nothing"], "toy:nothing"),
        (["--preset", "tiny", "--bacth", "3"], "--batch"),
    ],
)
def test_a_wrong_option_is_one_sentence(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        commands.main(["update", *options])
    assert stop.value.code == 2 and words in capsys.readouterr().err.splitlines()[-1]


def test_every_call_and_flop_belongs_to_one_part(made: Any) -> None:
    agent, _ = made
    replay = cases.fill(cases.prepare("dreamer", OPTIONS))
    spent, made_of = parts.counted(agent, replay)
    whole = calls.count(lambda: agent.learn(replay))
    assert sum(int(row[0]) for row in spent.values()) == whole.computing
    assert sum(int(row[1]) for row in spent.values()) == whole.flops == sum(one.flops for one in made_of)
    assert sum(int(row[2]) for row in spent.values()) == whole.bytes > 0


def test_backward_belongs_to_whose_forward_it_follows(made: Any) -> None:
    agent, _ = made
    replay = cases.fill(cases.prepare("dreamer", OPTIONS))
    spent, made_of = parts.counted(agent, replay)
    convolutions = {one.part for one in made_of if "convolution_backward" in str(one.func)}
    assert convolutions == {("encoder", True), ("decoder", True)}
    assert {one.part for one in made_of if str(one.func).startswith("aten.convolution.")} == {
        ("encoder", False),
        ("decoder", False),
    }
    flops = {key: row[1] for key, row in spent.items()}
    decoder = parts.Key("decoder", backward=False)
    assert flops[decoder] < flops[decoder._replace(backward=True)] <= 2 * flops[decoder]
    assert ("imagination", True) not in flops and spent[parts.Key("imagination", backward=False)][1] > 0


def test_measuring_parts_leaves_the_agent_as_it_was(made: Any) -> None:
    agent, _ = made
    before = {name: set(vars(module)) for name, module in agent.named_modules()}
    replay = cases.fill(cases.prepare("dreamer", OPTIONS))
    rows = parts.measure(agent, replay, rounds=1)
    assert {name: set(vars(module)) for name, module in agent.named_modules()} == before
    assert torch.autograd.grad.__module__ == "torch.autograd"
    assert all(row["cpu_s"] >= 0 for row in rows) and {"encoder", "optimiser"} < {row["part"] for row in rows}
    assert rows[-1]["part"] == "all"
    for name in ("cpu_s", "back_s", "aten_calls", "flops"):
        assert rows[-1][name] == pytest.approx(sum(row[name] for row in rows[:-1]))


def test_the_products_are_made_again_at_their_shapes() -> None:
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    w = torch.randn(4, 3, 5, 5, requires_grad=True)

    def run() -> None:
        y = torch.nn.functional.conv2d(x, w, padding=2)
        torch.autograd.grad((y.flatten(1) @ torch.ones(256, 2).t().t() + 1).sum(), w)

    with products.Products() as seen:
        run()
    replay = products.Replayed(seen.calls)
    with products.Products() as again:
        replay()
    assert [one[:4] for one in again.calls] == [one[:4] for one in seen.calls]
    assert again.computing == len(seen.calls) == 4 and again.other == 0


@pytest.mark.parametrize(("apart", "expected"), [(False, "ab" + "abbaab"), (True, "aabb" + "bbaa" + "aabb")])
def test_in_turn_means_one_update_of_each_in_every_round(tmp_path: pathlib.Path, apart: bool, expected: str) -> None:
    order = tmp_path / "order"
    players = [
        [sys.executable, "-c", PLAYER.format(path=str(ROOT / "tools"), name=name, order=str(order), sleep=sleep)]
        for name, sleep in (("a", 0.0), ("b", 0.05))
    ]
    played = turns.play(players, 3, apart=apart)
    assert order.read_text() == expected  # each warms up once, and once a turn where it starts anew
    assert [one["rounds"] for one in played] == [3, 3] and played[1]["size"] == 7
    assert played[1]["wall_s"] >= 0.05 > played[1]["cpu_s"] and played[1]["peak_mb"] > 1
    assert played[1]["ratio_wall_s_greatest"] < 1
    assert "| b |" in table(played, update.COLUMNS).splitlines()[-1]


PLAYER = """
import sys, time; sys.path.insert(0, {path!r})
from bench.turns import serve
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
    with pytest.raises(turns.TurnError, match=words):
        turns.play([[sys.executable, "-c", code]], 2)


def test_ours_and_its_products_keep_to_the_protocol(bench: Callable[..., list[dict[str, Any]]]) -> None:
    floor = f"{sys.executable} tools/bench floor {' '.join(OPTIONS)} --warmup 0"
    rows = bench("update", *OPTIONS, "--warmup", "0", "--rounds", "1", "--against", floor)
    assert [row["name"] for row in rows] == ["dreamer 2x8", "products of dreamer 2x8"]
    assert rows[1]["flops"] > 0 and rows[1]["ratio_cpu_s"] > 0


def test_a_peer_whose_library_is_missing_is_one_sentence(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)  # cannot be imported, wherever this runs
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit):
        commands.main(["peer", "dreamerv3", str(tmp_path)])
    assert "dreamerv3 needs jax, which " in capsys.readouterr().err.splitlines()[-1]


def test_a_peer_asks_for_nothing_of_ours() -> None:
    code = "import sys; sys.path.insert(0, 'tools'); import bench.commands, bench.peers; "
    code += "print([name for name in sys.modules if name.startswith(('wm_', 'torch', 'dreamer', 'env_adapters'))])"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "[]"


def test_an_option_with_several_values_is_the_axis(
    tmp_path: pathlib.Path, bench: Callable[..., list[dict[str, Any]]]
) -> None:
    out = tmp_path / "rows.jsonl"
    rows = bench("scaling", *OPTIONS, "--length", "4", "8", "--rounds", "1", "--out", str(out))
    assert rows == read(out)
    assert [(row["axis"], row["value"], row["length"]) for row in rows] == [("length", "4", 4), ("length", "8", 8)]
    assert 1.5 < rows[1]["flops"] / rows[0]["flops"] == rows[1]["flops_over_first"] < 2.5
    assert (tmp_path / "rows.png").stat().st_size > 1000


def test_an_act_has_a_row_for_each_number_of_environments(bench: Callable[..., list[dict[str, Any]]]) -> None:
    rows = bench("act", *OPTIONS, "--envs", "1", "4", "--rounds", "1")
    assert [row["envs"] for row in rows] == [1, 4]
    assert rows[0]["flops"] * 4 == rows[1]["flops"] and rows[0]["aten_calls"] == rows[1]["aten_calls"]


def test_the_loop_names_the_emulators_share(bench: Callable[..., list[dict[str, Any]]]) -> None:
    (row,) = bench("loop", *OPTIONS, "--envs", "3", "--steps", "4", "--rounds", "2")
    assert 0 < row["ratio_cpu_s"] < 1 and row["envs"] == 3
    assert row["agent_s"] > row["environments_s"] and row["steps_per_cpu"] < row["alone_per_cpu"]


def test_learning_while_the_environments_step_is_measured(bench: Callable[..., list[dict[str, Any]]]) -> None:
    """With a simulator that sleeps and no workers: there nothing is saved, and every round has its updates."""
    words = ["--task", "bench.loop:Waiting", "--workers", "0", "--train-ratio", "8"]
    (row,) = bench("overlap", *OPTIONS[:2], *words, "--envs", "2", "--steps", "2", "--rounds", "1")
    assert row["updates_a_step"] == 1.0 and row["idle_s"] > 0.1 and min(row["apart_s"], row["together_s"]) > 0.1


def test_r2i_and_an_rssm_in_its_place_take_turns(
    tmp_path: pathlib.Path, bench: Callable[..., list[dict[str, Any]]]
) -> None:
    sizes = [*OPTIONS, "--batch", "1", "--horizon", "2", "--length", "8", "--rounds", "1", "--warmup", "0"]
    small = ["--encoder-units", "16", "--classes", "4"]
    rows = bench("length", *sizes, *small, "--what", "sequence", "update", "--out", str(tmp_path / "rows.jsonl"))
    kinds = [(row["what"], row["name"], row["app"]) for row in rows]
    assert kinds == [(what, *who) for what in ("sequence", "update") for who in length.APPS.items()]
    rssm, ours = rows[:2]
    assert ours["ratio_cpu_s"] == pytest.approx(rssm["cpu_s"] / ours["cpu_s"])
    assert rssm["parameters"] != ours["parameters"] and rssm["observed"] == "image"
    assert (tmp_path / "rows.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "ways"),
    [
        ("dream --rollouts 2 --horizon 3 --context 2 --width 16", ["recomputed", "cached"]),
        ("encoder --frames 3", ["pieces", "at once"]),
    ],
)
def test_both_ways_of_storms_parts_take_turns(
    words: str, ways: list[str], bench: Callable[..., list[dict[str, Any]]]
) -> None:
    rows = bench(*words.split(), "--rounds", "1")
    assert [row["name"] for row in rows] == ways and rows[1]["ratio_wall_s"] > 0
    assert all(row.get("largest_difference", 0) < 1e-5 for row in rows)


def test_acting_one_after_the_other_is_measured_three_ways(bench: Callable[..., list[dict[str, Any]]]) -> None:
    words = "mat --agents 1 4 --teams 3 --width 16 --blocks 2 --heads 2 --rounds 1 --warmup 0 --repeat 1"
    rows = bench(*words.split())
    assert [row["name"] for row in rows] == ["recomputed", "cached", "at once"] * 2
    assert all(row["different"] == 0 and row["cpu_s"] > 0 for row in rows)
    assert [row["agents"] for row in rows] == [1] * 3 + [4] * 3


def test_scans_are_timed_in_processes_of_their_own(bench: Callable[..., list[dict[str, Any]]]) -> None:
    words = "scan --lengths 16 --rows 2 --states 4 --rounds 1 --methods two_level"
    rows = bench(*words.split())
    assert [row["method"] for row in rows] == ["sequential", "two_level"]  # which all others are compared with
    assert rows[0]["both_s_ratio"] == 1 and all(row["forward_s"] > 0 <= row["memory"] for row in rows)


def test_environments_are_stepped_beside_the_bare_ones(bench: Callable[..., list[dict[str, Any]]]) -> None:
    rows = bench(*["environments", "--tasks", "toy:catch", "--envs", "2", "--workers", "0", "--seconds", "0.01"])
    assert [row["envs"] for row in rows] == ["bare", "2"]
    assert rows[0]["wall_ratio"] == 1 and rows[1]["steps_per_wall"] > 0


@pytest.mark.parametrize(("task", "names"), [("toy:leavers", ["2"]), ("zoo:mpe2.simple_spread_v3", ["bare", "2"])])
def test_teams_are_stepped_by_actions_that_their_masks_allow(
    task: str, names: list[str], bench: Callable[..., list[dict[str, Any]]]
) -> None:
    rows = bench(*["environments", "--tasks", task, "--envs", "2", "--workers", "0", "--seconds", "0.01"])
    assert [row["envs"] for row in rows] == names
    assert rows[-1]["steps_per_wall"] > 0 and ("wall_ratio" in rows[-1]) == ("bare" in names)


def test_the_replay_is_filled_and_looked_at(tmp_path: pathlib.Path, bench: Callable[..., list[dict[str, Any]]]) -> None:
    words = f"--steps 3200 --bytes 30000000 --envs 1 --commit 500 --folder {tmp_path}"
    (row,) = bench("replay", "budget", *words.split())
    assert row["within"] and 0 < row["held"] < 3200 and row["commits"] >= 6 and row["sample_s"] > 0
    (row,) = bench("replay", "flat", "--sizes", "4000", "--folder", str(tmp_path))
    assert row["held"] >= 4000 and row["add_s"] > 0 and not any(tmp_path.iterdir())


def test_the_record_is_told(bench: Callable[..., list[dict[str, Any]]]) -> None:
    assert {row["method"]: row["act_16"] for row in bench("calls")}["dreamer"] > 0


def test_images_take_the_side_that_is_asked_for() -> None:
    case = cases.prepare("dreamer", OPTIONS, image=32)
    assert cases.batches_of(case)[0].steps["image"].shape[2:] == (32, 32, 3)


def test_smax_and_its_bare_step_are_handed_the_same() -> None:
    calls: list[tuple[Any, ...]] = []
    record = {"action_mask": np.ones((2, 3, 4), np.bool_)}

    def compiled(carry: int, *inputs: Any) -> tuple[int, dict[str, Any]]:
        calls.append((carry, *inputs))
        return carry + 1, {"alive": np.ones(1)}

    class Battles:
        """Counts steps in place of an SMAX batch."""

        action_spec = ActionSpec((4,))
        program = Program(compiled, (), lambda: 0, *[0] * 6)  # type: ignore[arg-type, return-value]

        def reset(self, seed: int) -> dict[str, Any]:
            self.at, _ = self.program.step(0, "reset")
            return record

        def step(self, action: Any) -> dict[str, Any]:
            self.at, _ = self.program.step(self.at, action.tobytes())
            return record

    found = smax.ways(Battles(), steps=5, rounds=2)  # type: ignore[arg-type]
    assert {name: len(costs) for name, costs in found.items()} == {"bare": 2, "adapter": 2}
    played, *rounds = (calls[:6], calls[6:18], calls[18:])
    assert len(calls) == 30 and len(set(played)) == 6
    assert all(sorted(one) == sorted([*played, *played]) for one in rounds)


def test_every_command_is_named_and_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in commands.FILES:
        with pytest.raises(SystemExit) as stop:
            commands.main([name, "--help"])
        assert stop.value.code == 0 and f"usage: bench {name}" in capsys.readouterr().out
        assert name in str(commands.__doc__)
    with pytest.raises(SystemExit, match="there is no command 'updat'"):
        commands.main(["updat"])


def test_a_row_replaces_that_of_the_same_thing(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "rows.jsonl"
    keep(file, [{"n": 1, "s": 1.0}, {"n": 2, "s": 2.0}], ("n",))
    keep(file, [{"n": 1, "s": 3.0}], ("n",))
    assert read(file) == [{"n": 1, "s": 3.0}, {"n": 2, "s": 2.0}]
    keep(file, [{"n": 1, "s": 3.0}], ())  # of things that nothing tells apart all are kept
    assert len(read(file)) == 3


def test_the_committed_rows_can_be_drawn_and_shown(tmp_path: pathlib.Path) -> None:
    for name, command in {
        "speed-scaling": scaling.COMMANDS["scaling"],
        "r2i-scaling": length.COMMANDS["length"],
    }.items():
        rows = read(ROOT / "docs" / "results" / f"{name}.jsonl")
        assert isinstance(command.picture, Picture) and len(rows) > 10
        command.picture.draw(rows, tmp_path / "drawn.png")
        assert (tmp_path / "drawn.png").stat().st_size > 10_000
        assert commands.show(command, rows).count("\n| ") > len(rows)

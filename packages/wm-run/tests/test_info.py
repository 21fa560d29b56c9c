"""What `info` says of a run that has not begun, and what is left of one that has: estimates of time, memory and disk."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import time

import pytest
import torch
from wm_run import checkpoint, commands
from wm_run.cli import main, parse
from wm_run.estimate import estimate, sentence, sentence_or_reason
from wm_run.trials import Cost


def test_without_a_preset_the_choice_and_the_full_setting_are_told(fakes, quiet, capsys, monkeypatch):
    said = []

    def tried(app, config, envs):
        said.append(capsys.readouterr().err)
        return sentence_or_reason(app, config, envs)

    monkeypatch.setattr("wm_run.info.sentence_or_reason", tried)
    main(fakes.app, ["train", "--device", "cpu", "--steps", "20", "--logdir", "D"])
    said += capsys.readouterr().err.splitlines(keepends=True)
    assert (
        "the preset `cpu` runs instead of the full setting `--preset atari100k`; trying out" in said[0]
    )  # before it does
    assert re.fullmatch(r"this run takes (about|between) .* GB of disk\)\n", said[1])
    assert re.fullmatch(r"the full setting would take (about|between) .* GB of disk\)\n", said[2])


def test_info_as_json(fakes, capsys):
    main(fakes.app, ["info", "--preset", "tiny", "--ablation", "narrow", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["parameters"] == {"encoder": 1, "total": 1}
    assert result["config"]["batch"] == 2 and result["config"]["run"]["ablation"] == "narrow"
    assert result["protocol"]["task"] == "fake"
    assert result["estimate"]["updates"] == 1 + (240 / 4 - 12) * 2.5 / 8
    assert {"hours", "ram_bytes", "vram_bytes", "disk_bytes"} <= result["estimate"].keys()


def test_info_as_text(fakes, capsys):
    main(fakes.app, ["info", "--preset", "tiny"])
    out = capsys.readouterr().out
    assert "parameters" in out and "train_ratio" in out and re.search("this run takes (about|between)", out)


def test_the_estimate_of_disk_is_the_records_of_the_run(fakes):
    config = fakes.config(task="fake", device="cpu", steps=400, batch=2, length=4)
    numbers = estimate(fakes.app, config, fakes.envs(1))
    record = 3 * 4 + 4 + 3 + 16 * 16 * 3 + 2 * 2  # action, reward, flags, image, notes
    assert numbers["disk_bytes"] - 2 * 3 * 8 == 100 * record
    assert "updates" in sentence(numbers)


@pytest.mark.parametrize("seconds", [0.1, 1.0, 10.0])
def test_dreams_that_start_elsewhere_are_counted_once(fakes, monkeypatch, seconds):
    """As STORM's: `seconds` an update whatever its rows, and a tenth of it for every 16 steps of them."""
    made = timed_by(fakes, monkeypatch, lambda rows, length: seconds * (1 + 0.1 * rows * length / 16))
    numbers = estimate(fakes.app, fakes.config(task="fake", device="cpu", batch=16, length=64), fakes.envs(1))
    assert numbers["seconds_per_update"] == pytest.approx(seconds * (1 + 0.1 * 64))
    assert made and max(rows * length for rows, length in made) <= 16 * 64 / 4  # no update of the run's own size


@pytest.mark.parametrize("calls", [1, 100])
def test_calls_that_follow_each_other_are_told_from_computing(fakes, monkeypatch, calls):
    """Of a recurrent network: a millisecond for every step of a row, however many rows there are, and one computed."""
    timed_by(fakes, monkeypatch, lambda rows, length: 1e-4 * (calls * length + rows * length))
    numbers = estimate(fakes.app, fakes.config(task="fake", device="cpu", batch=16, length=64), fakes.envs(1))
    assert numbers["seconds_per_update"] == pytest.approx(1e-4 * (calls * 64 + 16 * 64))


def test_one_row_is_told_from_a_longer_one(fakes, monkeypatch):
    timed_by(fakes, monkeypatch, lambda rows, length: 0.1 + 0.001 * rows * length)
    numbers = estimate(fakes.app, fakes.config(task="fake", device="cpu", batch=1, length=64), fakes.envs(1))
    assert numbers["seconds_per_update"] == pytest.approx(0.164)


def test_an_estimate_computes_in_one_thread_and_gives_the_others_back(fakes, monkeypatch):
    """What threads gain is measured on a product, and is of what is computed, not of the calls."""
    seen, learn = set(), fakes.agent.learn
    before = torch.get_num_threads()
    monkeypatch.setattr(
        fakes.agent, "learn", lambda self, replay: (seen.add(torch.get_num_threads()), learn(self, replay))[1]
    )
    torch.set_num_threads(2)
    try:
        estimate(fakes.app, fakes.config(task="fake", device="cpu", batch=2, length=8), fakes.envs(1))
        assert (seen, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)
    timed_by(fakes, monkeypatch, lambda rows, length: 0.01 + 0.001 * rows * length)
    monkeypatch.setattr("wm_run.estimate.shared", lambda threads: 0.5)
    numbers = estimate(fakes.app, fakes.config(task="fake", device="cpu", batch=16, length=64), fakes.envs(1))
    assert numbers["seconds_per_update"] == pytest.approx(0.01 + 0.5 * 0.001 * 16 * 64)


def timed_by(fakes, monkeypatch, seconds):
    """Updates that take what a rule of their rows and steps says. Gives the sizes of those that are made."""
    learn, made = fakes.agent.learn, []

    def seen(self, replay):
        made.append((self.batch, self.length))
        return learn(self, replay)

    def spend(run, **_):
        run()
        return Cost(*2 * (seconds(*made[-1]),))

    monkeypatch.setattr(fakes.agent, "learn", seen)
    monkeypatch.setattr("wm_run.trials.spend", spend)
    monkeypatch.setattr("wm_run.estimate.shared", lambda threads: 1.0)
    return made


def test_time_that_others_take_is_told_as_a_span(fakes, monkeypatch):
    """A learner that sleeps is what a preempted one looks like: the clock runs, its own time does not."""
    learn = fakes.agent.learn
    monkeypatch.setattr(fakes.agent, "learn", lambda self, replay: (time.sleep(0.03), learn(self, replay))[1])
    numbers = estimate(fakes.app, fakes.config(task="fake", device="cpu", batch=2, length=4), fakes.envs(1))
    assert numbers["hours_busy"] > 3 * numbers["hours"] > 0
    assert sentence(numbers).startswith("between ")


def test_work_of_its_own_is_no_excuse(fakes, monkeypatch):
    def work(self, replay):
        begin = time.thread_time()
        while time.thread_time() - begin < 0.05:
            pass
        return {}

    monkeypatch.setattr(fakes.agent, "learn", work)
    numbers = estimate(fakes.app, fakes.config(task="fake", device="cpu", batch=2, length=4), fakes.envs(1))
    assert 0.045 < numbers["seconds_per_update"] < 0.09


def test_an_estimate_that_fails_stops_nothing(fakes, quiet, capsys, monkeypatch):
    def fails(*args):
        raise RuntimeError("not enough memory:\nyou tried to allocate 99 GB")

    monkeypatch.setattr("wm_run.estimate.estimate", fails)
    main(fakes.app, ["train", "--device", "cpu", "--steps", "20", "--logdir", "D"])
    line = capsys.readouterr().err.splitlines()[1]
    assert "could not be measured here (RuntimeError: not enough memory: you tried" in line
    assert checkpoint.latest("D") is not None


def test_an_app_may_add_to_the_estimate(fakes):
    app = dataclasses.replace(fakes.app, estimate=lambda config, numbers: {"hours": 1.5, "gpu": "any"})
    numbers = estimate(app, fakes.config(task="fake", device="cpu", batch=2, length=4), fakes.envs(1))
    assert (numbers["hours"], numbers["gpu"]) == (1.5, "any")


def test_processes_share_the_updates(fakes):
    one, two = (
        estimate(fakes.app, fakes.config(task="fake", device="cpu", precision="fp32", devices=n), fakes.envs(1))
        for n in (1, 2)
    )
    assert two["updates"] == pytest.approx(one["updates"] / 2, rel=0.02) and two["updates"] > 0


@pytest.mark.parametrize("options", ["", "--learning-starts 40", "--learning-starts 1 --length 9", "--train-ratio 0"])
def test_the_estimate_counts_the_updates_that_a_run_makes(fakes, quiet, options):
    """Records of resets count towards the start of learning too, here every fifth or so."""
    words = ["--preset", "tiny", *options.split()]
    main(fakes.app, ["train", *words, "--logdir", "D"])
    made = int(checkpoint.load(checkpoint.latest("D")).state["agent"]["clock"]["updates"])
    numbers = estimate(fakes.app, parse(fakes.app, ["info", *words, "--device", "cpu"]).config, fakes.envs(1))
    assert 0 <= made - numbers["updates"] <= 4


def test_a_run_that_never_learns_makes_no_updates(fakes):
    config = fakes.config(task="fake", device="cpu", precision="fp32", steps=400, learning_starts=100)
    assert estimate(fakes.app, config, fakes.envs(1))["updates"] == 0


class Watchmaker:
    """A clock that goes 0.1 s an act and 5 s an update."""

    def __init__(self, agent, monkeypatch) -> None:
        self.now, self.lines = 0.0, []
        act, learn = agent.act, agent.learn
        monkeypatch.setattr(agent, "act", lambda *given, **named: self.after(0.1, act, *given, **named))
        monkeypatch.setattr(agent, "learn", lambda *given: self.after(5.0, learn, *given))

    def after(self, seconds, call, *given, **named):
        self.now += seconds
        return call(*given, **named)

    def write(self, text: str) -> None:
        self.lines += [(self.now, text)] if text.strip() else []

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize("starts", [12, 300, 10_000])
def test_the_time_left_is_told_from_the_speed_of_learning(fakes, quiet, monkeypatch, starts):
    clock = Watchmaker(fakes.agent, monkeypatch)
    made = functools.partial(commands.Progress, stream=clock, clock=lambda: clock.now, every=1.0)
    monkeypatch.setattr(commands, "Progress", made)
    options = ["--steps", "3200", "--learning-starts", str(starts), "--log-every", "800", "--save-every", "5000"]
    main(fakes.app, ["train", "--preset", "tiny", *options, "--logdir", "D"])
    told = [(now, re.search(r"ETA (.*?) \|", line).group(1)) for now, line in clock.lines if "ETA" in line]
    times = [(now, sum(int(n) * {"m": 60, "s": 1}[u] for n, u in re.findall(r"(\d+)([ms])", eta))) for now, eta in told]
    early = [eta for now, eta in told if eta == "measuring"]
    assert (len(early) > 1) == (starts == 300)
    late = [(now, eta) for (now, eta), (_, word) in zip(times, told, strict=True) if word != "measuring"]
    assert late and all(eta == pytest.approx(clock.now - now, rel=0.35, abs=15) for now, eta in late)

"""The training loop: what is counted, when updates are due, and that a stop leaves no trace."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from wm_core.clock import Clock
from wm_run import rollout as rollout_module
from wm_run.alarm import NotFinite, dump
from wm_run.loop import Position, Ratio, train
from wm_run.meter import Meter
from wm_run.replay import Replay
from wm_run.rollout import evaluate, rollout


class Lines:
    """A log in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.scores: list[tuple[int, float, int]] = []

    def metrics(self, step: int, values: Any) -> None:
        self.rows.append((step, dict(values)))

    def score(self, step: int, score: float, length: int) -> None:
        self.scores.append((step, score, length))


class Recording:
    """Environments that remember every record they gave."""

    def __init__(self, envs: Any) -> None:
        self.inner, self.records = envs, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def reset(self, seed: int) -> Any:
        self.records.append(self.inner.reset(seed))
        return self.records[-1]

    def step(self, action: Any) -> Any:
        self.records.append(self.inner.step(action))
        return self.records[-1]

    def receive(self) -> Any:
        self.records.append(self.inner.receive())
        return self.records[-1]


def play(fakes: Any, iterations: int, **changes: Any) -> tuple[Any, Recording, Replay, Position, Lines]:
    """Some iterations of the loop, without a run folder."""
    config = fakes.config(task="fake", device="cpu", envs=3, batch=2, length=4, **changes)
    envs, agent, log = Recording(fakes.envs(config.envs)), fakes.agent(config), Lines()
    replay = Replay(None, config.envs, stores={"deter": 1}, limit_bytes=10**8, chunk=64, length=4)
    at = Position.begin(agent, envs, seed=0, train_ratio=config.train_ratio, replayed=8)
    count = iter(range(iterations))
    options = {"log_every": config.log_every, "learning_starts": config.learning_starts, "length": 4}
    options |= {"temperature": config.act_temperature, "count_resets": config.ratio_counts == "records"}
    train(agent, envs, replay, at, log, go_on=lambda at: next(count, None) is not None, **options)
    return agent, envs, replay, at, log


def test_steps_are_actions_times_repeat_without_resets(fakes):
    agent, envs, replay, at, _ = play(fakes, 50)
    real = sum(int((~record["first"]).sum()) for record in envs.records)
    resets = sum(int(record["first"].sum()) for record in envs.records[1:])
    assert resets > 10
    assert at.steps == 4 * real
    assert agent.clock.steps == real
    assert replay.steps == 50 * 3


@pytest.mark.parametrize("counts", ["actions", "records"])
def test_the_ratio_counts_actions_or_records_too(fakes, counts):
    """Updates after the first one: 2.5 replayed steps for each action, or each record, of which 8 are an update."""
    _, envs, _, at, _ = play(fakes, 60, ratio_counts=counts, learning_starts=12, train_ratio=2.5, log_every=10**6)
    begun = 4  # 12 records of three environments; from the next ones on they count
    late = envs.records[begun:-1]
    real = sum(int((~one["first"]).sum()) if counts == "actions" else 3 for one in late)
    assert at.updates == 1 + int(real * 2.5 // 8)
    assert at.steps == 4 * sum(int((~one["first"]).sum()) for one in envs.records)  # steps are actions either way


def test_scores_are_sums_of_rewards_from_reset_to_end(fakes):
    _, envs, _, _, log = play(fakes, 60)
    expected, running, steps = [], [[] for _ in range(3)], 0
    for record in envs.records[1:]:
        steps += 4 * int((~record["first"]).sum())
        for i in range(3):
            running[i] = [] if record["first"][i] else [*running[i], float(record["reward"][i])]
            if record["last"][i]:
                expected.append((steps, sum(running[i]), len(running[i])))
    assert len(log.scores) > 20
    assert [(s, n) for s, _, n in log.scores] == [(s, n) for s, _, n in expected]
    assert np.allclose([score for _, score, _ in log.scores], [score for _, score, _ in expected])


def test_replay_holds_what_arrived_with_the_notes_of_acting(fakes):
    _, envs, replay, _, _ = play(fakes, 20, train_ratio=0.0)
    batch = replay.sample(64, 20)
    for key in ("action", "reward", "first", "last", "terminal", "image"):
        stored = np.stack([record[key] for record in envs.records[:20]], 1)
        assert (batch.steps[key].numpy() == stored[batch.index.stream.numpy()]).all()
    assert batch.steps["deter"].shape == (64, 20, 2)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 2.5, 8.0, 40.0])
def test_updates_replay_train_ratio_steps_per_policy_step(fakes, ratio):
    agent, envs, _, _, _ = play(fakes, 60, train_ratio=ratio, learning_starts=30)
    records = envs.records[:60]  # the 60th call of `step` came after the last chance to learn
    starts = next(t for t in range(60) if (t + 1) * 3 >= 30)
    after = sum(int((~record["first"]).sum()) for record in records[starts + 1 :])
    assert int(agent.clock.updates) == (int(after * ratio / 8) + 1 if ratio else 0)


def test_environments_are_out_while_the_agent_learns_and_back_before_anything_is_saved(fakes, monkeypatch):
    config, real, out = fakes.config(task="fake", device="cpu", envs=2, batch=2, length=4), fakes.agent.learn, []
    envs, agent = fakes.envs(2), fakes.agent(config)
    monkeypatch.setattr(
        fakes.agent, "learn", lambda self, replay: out.append(envs.out is not None) or real(self, replay)
    )
    replay = Replay(None, 2, stores={"deter": 1}, limit_bytes=10**8, chunk=64, length=4)
    at = Position.begin(agent, envs, seed=0, train_ratio=8, replayed=8)

    def go_on(at: Position) -> bool:
        assert envs.out is None
        return at.steps < 200

    train(agent, envs, replay, at, Lines(), log_every=1000, learning_starts=10, length=4, go_on=go_on)
    assert len(out) > 10 and all(out)


def test_nothing_is_learned_before_learning_starts(fakes):
    assert int(play(fakes, 9, learning_starts=30)[0].clock.updates) == 0
    assert int(play(fakes, 10, learning_starts=30)[0].clock.updates) == 1


def test_the_ratio_has_no_backlog_and_no_drift():
    ratio = Ratio(train_ratio=3, replayed=10)
    assert ratio.due(10_000) == 1  # what was played before learning started is not owed
    assert sum(ratio.due(1) for _ in range(1000)) == 300


def test_the_meter_is_the_mean_of_every_update_of_an_interval(fakes):
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add({"always": torch.tensor(value)} | ({"once": torch.tensor(5.0)} if value == 2 else {}))
    assert meter.take() == {"always": 3.0, "once": 5.0}
    assert meter.take() == {}


def test_metrics_stay_on_the_device_until_the_log(fakes, monkeypatch):
    def refuse(tensor):
        raise AssertionError("a host read")

    meter = Meter()
    for name in ("item", "tolist", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    meter.add({"loss": torch.tensor(1.0)})
    meter.add({"loss": torch.tensor(2.0)})
    with pytest.raises(AssertionError, match="host read"):
        meter.take()


def test_a_log_line_each_interval_of_steps(fakes):
    _, _, _, at, log = play(fakes, 100, log_every=100, learning_starts=30)
    steps = [step for step, _ in log.rows]
    assert len({step // 100 for step in steps}) == len(steps) == at.steps // 100
    assert all(step % 100 < 3 * 4 for step in steps)
    assert {"train/loss/reward", "train/updates", "replay/steps", "fps/policy", "fps/train"} <= log.rows[-1][1].keys()


def test_faults_are_told_and_logged(fakes):
    said = []
    config = fakes.config(task="fake", device="cpu", envs=2, batch=2, length=4)
    envs, agent, log = fakes.envs(2), fakes.agent(config), Lines()
    envs.faults = ["worker 1 was lost"]
    replay = Replay(None, 2, stores={"deter": 1}, limit_bytes=10**8, chunk=64, length=4)
    at = Position.begin(agent, envs, seed=0, train_ratio=0, replayed=8)
    options = {"log_every": 1000, "learning_starts": 10, "length": 4, "say": said.append}
    train(agent, envs, replay, at, log, go_on=lambda at: at.steps < 40, **options)
    assert said == ["worker 1 was lost"]
    assert [values for _, values in log.rows] == [{"env/faults": 1}]


def test_after_an_update_that_is_not_finite_nobody_acts_or_saves(fakes, monkeypatch, tmp_path):
    asked, updates, given, real = [], [], [], fakes.agent.learn

    def learn(self, replay):
        updates.append(len(asked))
        given[:] = [replay.sample(3, 2)]  # as an agent that dreams from other rows
        sample, replay.sample = (
            replay.sample,
            lambda *args, **options: given.append(sample(*args, **options)) or given[-1],
        )
        metrics = real(self, replay)
        replay.sample = sample
        return metrics | ({"loss/reward": torch.tensor(torch.nan)} if len(updates) == 3 else {})

    monkeypatch.setattr(fakes.agent, "learn", learn)
    config = fakes.config(task="fake", device="cpu", envs=3, batch=2, length=4, train_ratio=2.5, learning_starts=12)
    envs, agent = fakes.envs(3), fakes.agent(config)
    replay = Replay(None, 3, stores={"deter": 1}, limit_bytes=10**8, chunk=64, length=4)
    at = Position.begin(agent, envs, seed=0, train_ratio=2.5, replayed=8)
    options = {"log_every": 40, "learning_starts": 12, "length": 4}
    with pytest.raises(NotFinite, match="loss/reward is nan") as caught:
        train(agent, envs, replay, at, Lines(), go_on=lambda at: asked.append(at.steps) is None, **options)
    assert len(updates) == 3 and updates[-1] == len(asked)
    assert len(given) == 2 and all(a is b for a, b in zip(caught.value.batches, given, strict=True))
    dump(caught.value, tmp_path, {})
    held = safetensors.torch.load_file(tmp_path / "batch.safetensors")
    assert held["0/steps/reward"].shape == (3, 2) and held["1/steps/reward"].shape == (2, 4)


# ---- evaluation


def test_evaluation_disturbs_nothing(fakes):
    agent = fakes.agent(fakes.config(device="cpu"))
    before = agent.source.state_dict()["state"].clone(), torch.get_rng_state(), int(agent.clock.steps)
    evaluate(agent, fakes.envs(2), episodes=5, seed=3)
    assert torch.equal(agent.source.state_dict()["state"], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert int(agent.clock.steps) == before[2]


def test_collecting_has_a_temperature_and_an_evaluation_has_none(fakes, monkeypatch):
    told, act = [], fakes.agent.act

    def noted(self, carry, step, mode=False, temperature=1.0):
        told.append(temperature)
        return act(self, carry, step, mode)

    monkeypatch.setattr(fakes.agent, "act", noted)
    agent = play(fakes, 3, act_temperature=0.25)[0]
    assert told == [0.25] * 3
    evaluate(agent, fakes.envs(2), episodes=2, seed=3)
    assert len(told) > 5 and set(told[3:]) == {1.0}


def test_evaluation_depends_on_its_seed_alone(fakes):
    agent = fakes.agent(fakes.config(device="cpu"))
    one, other = (evaluate(agent, fakes.envs(2), episodes=5, seed=seed) for seed in (3, 4))
    for _ in range(7):
        agent.act(agent.initial(2), fakes.envs(2).reset(0))
    assert evaluate(agent, fakes.envs(2), episodes=5, seed=3) == one != other


def test_an_evaluation_can_be_stopped_and_does_not_wait_for_ever(fakes, monkeypatch):
    agent, asked = fakes.agent(fakes.config(device="cpu")), []
    results = evaluate(
        agent, fakes.envs(2), episodes=500, seed=3, go_on=lambda: len(asked) < 50 and not asked.append(1)
    )
    assert len(asked) == 50 and 10 < len(results) < 50
    endless = fakes.envs(2)
    monkeypatch.setattr(rollout_module, "LONGEST", 40)
    monkeypatch.setattr(endless, "reset", lambda seed: type(endless).reset(endless, seed) | {"last": np.zeros(2, bool)})
    step = type(endless).step
    monkeypatch.setattr(endless, "step", lambda action: endless_step(endless, step, action))
    assert evaluate(agent, endless, episodes=2, seed=3) == []


def endless_step(envs, step, action):
    """One step of episodes that never end."""
    envs.left[:] = 9
    return step(envs, action)


@pytest.fixture
def faulty(fakes):
    """(n) -> environments with a fault at every second step, which cuts what ends there; `cuts` holds what was."""

    class Faulty(fakes.envs):
        def __init__(self, n: int) -> None:
            super().__init__(n)
            self.cuts: list[Any] = []

        def step(self, action: Any) -> Any:
            record = super().step(action)
            self.cut = record["last"] & (self.calls % 2 == 0)
            self.faults = ["cut short"] * int(self.cut.any())
            self.cuts.append(self.cut)
            return record

    return Faulty


def whole_lengths(records, cuts, i):
    """Of an environment's episodes that were not cut."""
    lengths, length = [], 0
    for record, cut in zip(records, cuts, strict=True):
        length = 0 if record["first"][i] else length + 1
        lengths += [length] if record["last"][i] and not cut[i] else []
    return lengths


def test_an_episode_that_a_fault_cut_short_has_no_score(fakes, faulty):
    """It would count as a short one."""
    said, envs = [], Recording(faulty(2))
    results = evaluate(fakes.agent(fakes.config(device="cpu")), envs, episodes=6, seed=0, say=said.append)
    expected = [length for i in range(2) for length in whole_lengths(envs.records[1:], envs.cuts, i)[:3]]
    assert [episode.length for episode in results] == expected
    assert len(said) == sum(cut.any() for cut in envs.cuts) > 1


def test_nor_has_one_of_training(fakes, faulty):
    """What is told of it is one of the log's numbers."""
    _, envs, _, at, log = play(SimpleNamespace(config=fakes.config, agent=fakes.agent, envs=faulty), 60)
    expected = [whole_lengths(envs.records[1:], envs.cuts, i) for i in range(3)]
    assert sorted(length for _, _, length in log.scores) == sorted(length for each in expected for length in each)
    assert sum(cut.sum() for cut in envs.cuts) > 5 < len(log.scores)
    assert sum(row.get("env/faults", 0) for _, row in log.rows) == sum(cut.any() for cut in envs.cuts)
    assert at.steps == 4 * sum(int((~record["first"]).sum()) for record in envs.records)  # the steps were taken


def test_every_environment_plays_its_share_of_the_episodes(fakes):
    """Taking the first episodes to end would prefer the short ones."""
    agent = fakes.agent(fakes.config(device="cpu"))
    envs = Recording(fakes.envs(3))
    results = evaluate(agent, envs, episodes=7, seed=0)
    expected = []
    for i, share in enumerate((3, 2, 2)):
        lengths, length = [], 0
        for record in envs.records:
            length = 0 if record["first"][i] else length + 1
            lengths += [length] if record["last"][i] else []
        expected += lengths[:share]
    assert [episode.length for episode in results] == expected


def test_a_rollout_pairs_each_record_with_the_action_that_led_there(fakes):
    agent, envs = fakes.agent(fakes.config(device="cpu")), Recording(fakes.envs(2))
    for step, _ in zip(rollout(agent, envs, seed=0), range(10), strict=False):
        assert step["action"].tolist() == envs.records[-1]["action"].tolist()
        assert step["deter"].shape == (2, 2)


def test_a_state_from_before_updates_could_be_interrupted(fakes):
    _, _, _, at, _ = play(fakes, 20)
    state = {name: value for name, value in at.state().items() if name not in ("due", "arrived")}
    again = Position.resume(state, "cpu", train_ratio=2.5, replayed=8)
    assert (again.due, again.arrived) == (0, None)


def test_the_clock_is_changed_in_place():
    clock = Clock()
    steps, updates = clock.steps, clock.updates
    clock.count_steps(3)
    clock.load_state_dict({"steps": torch.tensor(9), "updates": torch.tensor(2)})
    assert clock.steps is steps and clock.updates is updates
    assert (int(steps), int(updates)) == (9, 2)


def test_position_state_names_every_field_of_the_loop(fakes):
    """A field added to the loop and forgotten in the checkpoint would break resuming silently."""
    _, _, _, at, _ = play(fakes, 5)
    inside = {"ratio": "owed", "meter": "sums"}
    missing = {f.name for f in dataclasses.fields(at)} - at.state().keys() - inside.keys()
    assert not missing and set(inside.values()) <= at.state().keys()

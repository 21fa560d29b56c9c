"""Doors for a team: rules that are everyone's own, a reward that is everyone's, and nothing of another in what one sees."""

import pickle

import gymnasium
import numpy as np
import pytest
from env_adapters import TaskError, check_env, make, make_vec, parallel_env, tasks
from env_adapters.toys_doors_team import DoorsTeam
from pettingzoo.test import parallel_api_test

DOOR = np.eye(4, dtype=np.float32)


def right_of(envs, step):
    """(n, N) the right doors of cues that are shown."""
    return np.take_along_axis(np.array(envs.get("rule")), step["vector"][..., :32].argmax(-1)[..., None], -1)[..., 0]


def test_each_sees_its_cue_then_its_right_door_and_is_paid_the_teams_share():
    env = DoorsTeam(seed=1)
    for seed in range(20):
        before, info = env.reset(seed=seed)
        assert info == {} and before["vector"].shape == (3, 36) and not before["vector"][:, 32:].any()
        assert before["vector"].sum() == 3 and np.array_equal(before["vector"][:, :32].argmax(1), env.cue)
        doors = env.rule[np.arange(3), env.cue]
        wrong = np.arange(3) < seed % 4  # the first few open another
        after, reward, terminated, truncated, info = env.step((doors + wrong) % 4)
        assert np.array_equal(after["vector"][:, :32], before["vector"][:, :32])
        assert np.array_equal(after["vector"][:, 32:], DOOR[doors])
        assert reward.tolist() == [float(np.mean(~wrong))] * 3 and info["right"].tolist() == (~wrong).tolist()
        assert terminated is True and truncated is False
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step([0, 0, 0])


def test_the_records_say_whose_door_was_right_where_the_reward_does_not():
    envs = make_vec("toy:doors_team", 4, agents=2)
    assert (envs.agents, envs.signals, envs.outcomes, envs.noop) == (2, ("right",), (), None)
    step = envs.reset(3)
    for _ in range(30):
        ask = step["first"]
        doors = right_of(envs, step)
        if ask.all():
            assert not step["right"].any() and not step["reward"].any()
        chosen = doors + [0, 1]  # the first agent knows, the second does not
        step = envs.step(DOOR[chosen % 4])
        if ask.all():
            assert (step["reward"] == 0.5).all() and np.array_equal(step["right"], [[True, False]] * 4)
            assert step["last"].all() and np.array_equal(step["terminal"], step["last"])
            own = (step["vector"][..., 32:] * step["action"]).sum(-1)  # told by an agent's own record
            assert np.array_equal(own > 0, step["right"])


def test_the_rules_of_agents_and_of_instances_differ():
    envs = make_vec("toy:doors_team", 70, agents=3)
    envs.reset(0)
    rules = np.array(envs.get("rule"))
    assert rules.shape == (70, 3, 32)
    each = rules.reshape(210, 32)
    assert len({rule.tobytes() for rule in each}) == 210
    np.testing.assert_allclose(np.bincount(each.ravel(), minlength=4) / each.size, 0.25, atol=0.03)
    agree = (each[:, None] == each[None]).mean(-1)[np.triu_indices(210, 1)].mean()
    assert agree == pytest.approx(0.25, abs=0.01)
    within = (rules[:, :, None] == rules[:, None]).mean(-1)[:, [0, 0, 1], [1, 2, 2]].mean()
    assert within == pytest.approx(0.25, abs=0.03)


def test_cues_are_drawn_independently():
    envs = make_vec("toy:doors_team", 64, agents=2, cues=4)
    step, pairs, many = envs.reset(0), np.zeros((4, 4)), 0
    for _ in range(100):
        cue = step["vector"][step["first"]][..., :4]
        pairs, many = pairs + cue[:, 0].T @ cue[:, 1], many + len(cue)
        step = envs.step(np.zeros((64, 2, 4), np.float32))
    assert many == 3200 and np.abs(pairs / many - 1 / 16).max() < 0.022  # five standard deviations


@pytest.mark.parametrize("redraw", [0, 1, 5])
def test_rules_outlive_episodes_and_are_redrawn_one_by_one(redraw):
    env = DoorsTeam(seed=3, redraw=redraw)
    changed = []
    for seed in range(600):
        rule = env.rule
        env.reset(seed=seed % 3)
        changed.append((env.rule != rule).any(1))
        before = env.rule
        env.step([0, 0, 0])
        assert np.array_equal(env.rule, before)
    assert not changed[0].any()  # the first episode has the first rule
    often = np.mean(changed[1:], axis=0)
    np.testing.assert_allclose(often, 1 / redraw if redraw else 0, atol=0.06)  # four standard deviations at 1 / 5
    if redraw == 5:
        assert np.corrcoef(np.array(changed[1:]).T)[np.triu_indices(3, 1)] == pytest.approx([0, 0, 0], abs=0.17)


def test_what_befalls_an_agent_depends_neither_on_what_others_do_nor_on_how_many_there_are():
    rng = np.random.default_rng(0)
    one, other, more = (make_vec("toy:doors_team", 5, redraw=4, agents=n) for n in (3, 3, 5))
    steps = [envs.reset(7) for envs in (one, other, more)]
    for _ in range(60):
        mine = rng.integers(4, size=(5, 1))
        wide = [np.concatenate([mine, rng.integers(4, size=(5, n - 1))], 1) for n in (3, 3, 5)]
        rules = [np.array(envs.get("rule"))[:, :3] for envs in (one, other, more)]
        for step, rule in zip(steps[1:], rules[1:], strict=True):
            assert np.array_equal(rule, rules[0])  # not by a draw, nor by an action
            assert np.array_equal(step["vector"][:, :3], steps[0]["vector"])
            assert np.array_equal(step["right"][:, 0], steps[0]["right"][:, 0])
        steps = [envs.step(DOOR[doors]) for envs, doors in zip((one, other, more), wide, strict=True)]


def test_whoever_knows_its_rule_is_right_and_who_takes_anothers_is_by_chance():
    envs, rng = make_vec("toy:doors_team", 32, redraw=6), np.random.default_rng(0)
    step, right, paid = envs.reset(2), [], []
    for _ in range(160):
        cue = step["vector"][..., :32].argmax(-1)  # (n, N)
        rule = np.array(envs.get("rule"))
        own, anothers = rule[np.arange(32), 0, cue[:, 0]], rule[np.arange(32), 0, cue[:, 1]]
        step = envs.step(DOOR[np.stack([own, anothers, rng.integers(4, size=32)], 1)])
        if step["last"].all():
            right.append(step["right"])
            paid.append(envs.score(step))
    found = np.concatenate(right).mean(0)
    assert found[0] == 1 and found[1:] == pytest.approx([0.25, 0.25], abs=0.04)  # 2,560 doors each
    assert np.concatenate(paid).mean() == pytest.approx(found.mean())


@pytest.mark.parametrize("options", [{"redraw": 2}, {"agents": 1}, {"agents": 5, "cues": 3, "doors": 2, "redraw": 2}])
def test_the_specification_passes(options):
    assert check_env("toy:doors_team", steps=60, **options) == []
    assert "toy:doors_team" in tasks()
    parallel_api_test(parallel_env("toy:doors_team", **options), num_cycles=50)


def unseeded(env):
    return [[env.reset()[0]["vector"].tobytes(), env.step([1, 1, 1])[0]["vector"].tobytes()] for _ in range(12)]


def test_a_snapshot_holds_rules_histories_and_generators():
    env, other = DoorsTeam(redraw=2), DoorsTeam(redraw=2)
    env.reset(seed=3), env.step([0, 0, 0]), env.reset()
    state = pickle.loads(pickle.dumps(env.snapshot()))
    rule, cue = env.rule, env.cue
    expected = unseeded(env)
    for one in (env, other):
        one.restore(state)
        assert np.array_equal(one.rule, rule) and np.array_equal(one.cue, cue)
        assert unseeded(one) == expected


@pytest.mark.parametrize(("workers", "at"), [(0, 20), (2, 21)])
def test_a_restored_run_equals_the_unbroken_one(workers, at):
    def roll(envs, plan):
        return [envs.step(DOOR[doors]) for doors in plan]

    plan = np.random.default_rng(0).integers(4, size=(60, 2, 3))
    with make_vec("toy:doors_team", 2, workers=workers, redraw=3) as envs:
        envs.reset(5)
        roll(envs, plan[:at])
        state = pickle.loads(pickle.dumps(envs.state()))
        expected = roll(envs, plan[at:])
    with make_vec("toy:doors_team", 2, workers=0, redraw=3) as envs:
        envs.load_state(state)
        for one, two in zip(roll(envs, plan[at:]), expected, strict=True):
            assert all(np.array_equal(one[name], two[name]) for name in two)
        assert envs.take_faults() == []


def test_a_seed_decides_everything_with_or_without_seeded_resets():
    one, two, three = (make("toy:doors_team", seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(one.unwrapped.rule, two.unwrapped.rule)
    assert not (one.unwrapped.rule == three.unwrapped.rule).all(1).any()
    assert unseeded(one) == unseeded(two)
    one, two, three = DoorsTeam(), DoorsTeam(), DoorsTeam()  # then the first seeded reset does
    one.reset(seed=4), two.reset(seed=4), three.reset(seed=5)
    assert np.array_equal(one.rule, two.rule) and not (one.rule == three.rule).all(1).any()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"agents": 0}, "toy:doors_team needs at least one agent; got 0"),
        ({"doors": 1}, "doors >= 2"),
        ({"redraw": -1}, "redraw >= 0"),
        ({"agents": "3"}, "the option agents is '3', a str; it is int"),
    ],
)
def test_options_that_make_no_game_are_a_sentence(options, told):
    with pytest.raises(TaskError, match=told):
        make("toy:doors_team", **options)


def test_an_action_of_the_wrong_number_of_agents_is_refused():
    env = DoorsTeam()
    env.reset(seed=0)
    for action in (1, [1, 2], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match="each of its 3 agents"):
            env.step(action)

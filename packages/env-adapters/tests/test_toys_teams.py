"""Whisper: its chance and its ideal, by enumeration. Leavers: every record against tables written by hand."""

import itertools
import pickle

import gymnasium
import numpy as np
import pytest
from env_adapters import TaskError, check_env, make, make_vec, tasks
from env_adapters.audit import audit, table
from env_adapters.team import choose
from env_adapters.toys_teams import Leavers, Whisper

ONE = np.eye(4, dtype=np.float32)


def test_whisper_shows_what_was_given_and_what_the_left_neighbour_did():
    env = Whisper()
    shown, info = env.reset(seed=0)
    env.symbols[:] = 3, 0, 1
    assert info == {} and shown["vector"].shape == (3, 9) and not shown["vector"][:, 4:].any()
    shown, reward, terminated, truncated, _ = env.step([2, 1, 0])
    assert np.array_equal(shown["vector"][:, :4], ONE[[3, 0, 1]])
    assert np.array_equal(shown["vector"][:, 4:8], ONE[[0, 2, 1]])  # agent 0 hears agent 2, 1 hears 0, 2 hears 1
    assert shown["vector"][:, 8].tolist() == [0.5] * 3 and not reward.any() and not terminated
    shown, reward, terminated, truncated, _ = env.step([1, 3, 2])  # right are 1, 3, 0
    assert reward.tolist() == [2 / 3] * 3 and terminated and not truncated
    assert np.array_equal(shown["vector"][:, 4:8], ONE[[2, 1, 3]]) and shown["vector"][:, 8].tolist() == [1] * 3
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0, 0, 0])


def test_whisper_pays_random_answers_a_quarter_whatever_is_emitted():
    """All 4^6 courses of two agents."""
    env, total = Whisper(agents=2), 0.0
    env.reset(seed=0)
    begun = env.snapshot()
    for *symbols, one, two, three, four in itertools.product(range(4), repeat=6):
        env.restore(begun | {"symbols": symbols})
        assert env.step([one, two])[1].tolist() == [0, 0]
        total += env.step([three, four])[1].sum()
    assert total / 2 / 4**6 == 0.25


@pytest.mark.parametrize("agents", [1, 2, 3, 5])
def test_whisper_pays_whoever_tells_and_repeats_one(agents):
    env = make_vec("toy:whisper", 8, agents=agents)
    step, scores = env.reset(seed=1), []
    for _ in range(60):
        vector = step["vector"]
        action = np.where(vector[..., 8:] == 0, vector[..., :4], vector[..., 4:8])  # tell the truth; repeat
        step = env.step(action)
        scores += env.score(step)[step["last"]].tolist()
        assert np.array_equal(step["terminal"], step["last"]) and step["action_mask"].all() and step["alive"].all()
    assert len(scores) == 8 * 20 and set(scores) == {1.0}


def test_whisper_draws_every_symbol_of_every_agent_equally_often():
    env = make_vec("toy:whisper", 64)
    step, counts, pairs = env.reset(seed=0), np.zeros((3, 4)), np.zeros((4, 4))
    for _ in range(150):
        given = step["vector"][step["first"]][..., :4]
        counts += given.sum(0)
        pairs += given[:, 0].T @ given[:, 1]
        step = env.step(np.zeros((64, 3, 4), np.float32))
    assert counts.sum(1).tolist() == [3200.0] * 3
    assert np.abs(counts / 3200 - 1 / 4).max() < 0.04  # five standard deviations
    assert np.abs(pairs / 3200 - 1 / 16).max() < 0.022  # and independently


# time, forbidden choice of each agent, who is there, right actions; shift 1, agents 3, times "2,4", limit 6
LEAVERS = [
    (0, [2, 3, 1], [1, 1, 1], [3, 1, 2]),
    (1, [3, 1, 2], [1, 1, 1], [1, 2, 3]),
    (2, [1, 2, 3], [0, 1, 1], [0, 3, 1]),
    (3, [2, 3, 1], [0, 1, 1], [0, 1, 2]),
    (4, [3, 1, 2], [0, 0, 1], [0, 0, 3]),
    (5, [1, 2, 3], [0, 0, 1], [0, 0, 1]),
    (6, [2, 3, 1], [0, 0, 1], [0, 0, 2]),
]


def with_shift(env, wanted):
    """A run seed whose first episode has this shift."""
    for seed in range(50):
        step = env.reset(seed)
        if step["vector"][0, 0, :3].argmax() == wanted:
            return step
    raise AssertionError


def test_leavers_follows_its_table():
    env = make_vec("toy:leavers", 1)
    assert (env.agents, env.noop, env.state_size, env.outcomes) == (3, 0, 4, ("won",))
    step = with_shift(env, 1)
    for time, forbidden, there, right in LEAVERS:
        there = np.array(there, bool)
        mask = np.array(
            [[c not in (0, f) if on else c == 0 for c in range(4)] for f, on in zip(forbidden, there, strict=True)]
        )
        assert np.array_equal(step["action_mask"][0], mask), time
        assert step["alive"][0].tolist() == there.tolist()
        lives = np.clip(np.array([2, 4, 6]) - time, 0, None) / 6
        vector = np.column_stack([np.eye(3)[np.array(forbidden) - 1], np.full(3, time / 6), lives])
        assert np.array_equal(step["vector"][0], vector.astype(np.float32) * there[:, None])
        assert np.array_equal(step["state"][0], np.float32([*there, time / 6]))
        earned = np.zeros(3) if time == 0 else np.array(LEAVERS[time - 1][2])
        assert np.array_equal(step["reward"][0], earned)
        assert step["left"][0].tolist() == [time == 2, time == 4, False]
        assert step["last"].tolist() == [time == 6] and not step["terminal"].any()  # the third stays: a truncation
        assert step["won"].tolist() == [time == 6]
        step = env.step(ONE[[right]])
    assert step["first"].all() and step["alive"].all() and step["action_mask"][0].sum() == 6


def test_leavers_ends_where_nobody_is_left():
    env = make_vec("toy:leavers", 1, agents=2, times="1,3")
    step, total = env.reset(0), 0.0
    for time in (1, 2, 3):
        allowed = (
            step["action_mask"] & ~ONE.astype(bool)[env_right(env)][None]
        )  # the wrong one of the two, where there is one
        step = env.step(
            choose(
                env.action_spec,
                np.ones(allowed.shape),
                np.where(step["alive"][..., None], allowed, step["action_mask"]),
            )
        )
        total += step["reward"].sum()
        assert step["alive"][0].tolist() == [False, time < 3]
        assert step["terminal"].tolist() == step["last"].tolist() == [time == 3]
    assert total == 0 and not step["won"].any()
    assert step["action_mask"][0].tolist() == [[True, False, False, False]] * 2 and not step["vector"].any()


def env_right(env):
    return env.get("right")[0]()


def test_leavers_ends_in_one_way_alone():
    for times, ends in (("1", [(False, False), (False, True)]), ("1,2", [(False, False), (True, False)])):
        env = Leavers(agents=2, times=times, limit=2)
        env.reset(seed=0)
        assert [env.step(env.right())[2:4] for _ in range(2)] == ends


def test_leavers_refuses_what_is_forbidden_alone_too():
    env = Leavers()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="agent 0: action 0 is masked out"):
        env.step([0, 1, 1])


@pytest.mark.parametrize(
    ("task", "options", "told"),
    [
        ("toy:leavers", {"times": "1,2,3,4"}, "times of at most all of them"),
        ("toy:leavers", {"times": "2,x"}, "got 3, 6 and '2,x'"),
        ("toy:leavers", {"times": "0"}, "1 or later"),
        ("toy:leavers", {"limit": 0}, "limit >= 1"),
        ("toy:leavers", {"agents": 0}, "agents >= 1"),
        ("toy:whisper", {"agents": 0}, "at least one agent"),
        ("toy:whisper", {"agents": "3"}, "the option agents is '3', a str; it is int"),
    ],
)
def test_options_that_make_no_game_are_a_sentence(task, options, told):
    with pytest.raises(TaskError, match=told):
        make(task, **options)


TEAMS = [("toy:whisper", {}), ("toy:whisper", {"agents": 5}), ("toy:leavers", {}), ("toy:leavers", {"times": "1,3,2"})]


@pytest.mark.parametrize(("task", "options"), TEAMS)
def test_the_specification_passes(task, options):
    assert check_env(task, steps=60, **options) == []
    assert task in tasks()


@pytest.mark.parametrize(("task", "options"), TEAMS)
def test_masks_hold_and_states_go_on(task, options):
    env, rng = make_vec(task, 16, **options), np.random.default_rng(0)
    step = env.reset(0)
    for time in range(200):
        scores = rng.uniform(size=step["action"].shape)
        action = choose(env.action_spec, scores, step["action_mask"])
        if time == 77:
            state = pickle.loads(pickle.dumps(env.state()))
            other = make_vec(task, 16, **options)
            other.load_state(state)
            assert not other.take_faults()
        after = env.step(action)
        if time >= 77:
            again = other.step(action)
            assert all(np.array_equal(after[name], again[name]) for name in after)
        on = ~after["first"]
        assert not (after["action"][on].astype(bool) & ~step["action_mask"][on]).any()
        assert (step["alive"] | (step["action_mask"][..., env.noop or 0])).all()
        step = after


def test_random_play_earns_half_of_a_perfect_teams_score():
    env, rng = make_vec("toy:leavers", 64), np.random.default_rng(0)
    step, total, episodes = env.reset(0), 0.0, 0
    for _ in range(140):
        step = env.step(choose(env.action_spec, rng.uniform(size=(64, 3, 4)), step["action_mask"]))
        total, episodes = total + env.score(step).sum(), episodes + step["last"].sum()
    assert episodes == 64 * 20 and abs(total / episodes - 2) < 0.1


def test_workers_give_the_same():
    with make_vec("toy:leavers", 2, workers=1) as far, make_vec("toy:leavers", 2) as near:
        one, two, rng = far.reset(3), near.reset(3), np.random.default_rng(0)
        for _ in range(15):
            assert all(np.array_equal(one[name], two[name]) for name in two)
            action = choose(near.action_spec, rng.uniform(size=(2, 3, 4)), two["action_mask"])
            one, two = far.step(action), near.step(action)


def test_the_audit_plays_by_the_masks():
    found = audit("toy:leavers", steps=20)
    assert found.passed, found.findings
    assert "suggested: an app for environments of several; this has 3 agents" in table(found)
    record = make_vec("toy:leavers", 1).reset(0)
    assert found.numbers["record_bytes"] == sum(array.nbytes for array in record.values())

"""SMAX: records with an agents axis, one compiled step, episodes that follow from seeds, snapshots, what ends an episode."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from env_adapters import make_vec
from env_adapters.smax_program import program
from env_adapters.step import digest

N, AGENTS, ACTIONS, STOP = 4, 3, 8, 4  # environments of most tests; 3m
RANGE = 5.0  # a marine's
EYE = np.eye(ACTIONS, dtype=np.float32)


def made():
    return make_vec("smax:3m", N)


def chosen(rng, step):
    """Each agent's action, uniform among those that its mask allows."""
    return EYE[(rng.random(step["action_mask"].shape) * step["action_mask"]).argmax(-1)]


def play(env, step, steps, rng, policy=chosen):
    """The records of so many steps."""
    found = []
    for _ in range(steps):
        step = env.step(policy(rng, step))
        found.append(step)
    return found


@pytest.fixture(scope="module")
def env():
    with made() as env:
        yield env


@pytest.fixture(scope="module")
def records(env):
    """(T + 1, n, ...) of 150 random steps after a reset, and the units' state behind each record."""
    rng, step = np.random.default_rng(0), env.reset(seed=7)
    steps, units = [step], [env.state()["units"]]
    for _ in range(150):
        steps.append(env.step(chosen(rng, steps[-1])))
        units.append(env.state()["units"])
    assert sum(one["last"].sum() for one in steps) > 20

    def stacked(rows):
        return {name: np.stack([one[name] for one in rows]) for name in rows[0]}

    return stacked(steps), stacked(units)


def test_spaces_are_of_one_agent_and_records_of_all(env, records) -> None:
    steps, _ = records
    assert (env.agents, env.noop, env.state_size, env.action_spec.discrete) == (AGENTS, STOP, 72, (ACTIONS,))
    space = env.observation_space["vector"]
    assert space.shape == (75,) and not space.is_bounded("below") and not space.is_bounded("above")
    shapes = {name: (array.shape[2:], array.dtype.name) for name, array in steps.items()}
    assert shapes == {
        "vector": ((3, 75), "float32"),
        "action": ((3, 8), "float32"),
        "reward": ((3,), "float32"),
        "action_mask": ((3, 8), "bool"),
        "alive": ((3,), "bool"),
        "state": ((72,), "float32"),
        **dict.fromkeys(("first", "last", "terminal", "won"), ((), "bool")),
    }
    assert all(np.isfinite(steps[name]).all() for name in ("vector", "state", "reward"))
    assert steps["state"].min() >= 0 and steps["state"].max() <= 1
    assert (steps["reward"] == steps["reward"][..., :1]).all()
    assert (env.score({name: array[5] for name, array in steps.items()}) == steps["reward"][5, :, 0]).all()
    assert json.loads(json.dumps(env.protocol)) == env.protocol and "SMAX" in env.protocol["name"]


def test_the_record_after_a_last_one_is_a_reset(records) -> None:
    steps, units = records
    assert (steps["first"][1:] == steps["last"][:-1]).all()
    first = steps["first"]
    assert not any(steps[name][first].any() for name in ("action", "reward", "last", "terminal", "won"))
    assert steps["alive"][first].all() and (units["state.step"][first] == 0).all()
    assert (steps["action"][~first].sum(-1) == 1).all()


def test_masks_hold_moves_of_the_living_and_enemies_in_range(records) -> None:
    steps, units = records
    place, alive = units["state.unit_positions"], units["state.unit_alive"]
    near = np.linalg.norm(place[..., :AGENTS, None, :] - place[..., None, AGENTS:, :], axis=-1) < RANGE
    expected = np.empty_like(steps["action_mask"])
    expected[..., :STOP] = alive[..., :AGENTS, None]
    expected[..., STOP] = True
    expected[..., STOP + 1 :] = near & alive[..., :AGENTS, None] & alive[..., None, AGENTS:]
    assert (steps["action_mask"] == expected).all()
    assert expected[..., STOP + 1 :].any()


def test_the_dead_see_nothing_and_only_stop(records) -> None:
    steps, units = records
    assert (steps["alive"] == units["state.unit_alive"][..., :AGENTS]).all()
    dead = ~steps["alive"]
    assert dead.sum() > 50
    assert not steps["vector"][dead].any()
    assert (steps["action_mask"][dead] == (np.arange(ACTIONS) == STOP)).all()
    assert (steps["vector"][~dead].any(-1)).all()


def test_ends_are_as_the_units_say(records) -> None:
    steps, units = records
    ours, theirs = (units["state.unit_alive"][..., part].any(-1) for part in (slice(AGENTS), slice(AGENTS, None)))
    assert (steps["terminal"] == ~(ours & theirs)).all()
    assert (steps["won"] == (ours & ~theirs)).all()
    assert (steps["last"] == (steps["terminal"] | (units["state.step"] >= 100))).all()


def test_two_instances_give_the_same_records(records) -> None:
    steps, _ = records
    with made() as env:
        rng, step = np.random.default_rng(0), env.reset(seed=7)
        again = [step, *play(env, step, 150, rng)]
        assert all((np.stack([one[name] for one in again]) == steps[name]).all() for name in steps)
        assert not (env.reset(seed=8)["vector"] == steps["vector"][0]).all()
    step = program("3m", N, see_enemy_actions=True, walls_cause_death=True, attack_mode="closest").step
    assert step._cache_size() == 1  # noqa: SLF001  # compiled once for all instances of this size


FRESH = """
import pickle, sys
import numpy as np
from env_adapters import make_vec
from env_adapters.smax_program import program
from env_adapters.step import digest

state, actions = pickle.load(sys.stdin.buffer)
with make_vec("smax:3m", len(state["episode"])) as env:
    assert env.load_state(state) is None
    print(digest([env.step(action) for action in actions]))
"""


def test_a_snapshot_goes_on_bit_for_bit_here_and_in_another_process(env) -> None:
    rng = np.random.default_rng(1)
    before = play(env, env.reset(seed=3), 37, rng)
    state = env.state()
    kept = pickle.dumps(state)
    ahead = play(env, before[-1], 200, rng)
    assert sum(one["last"].sum() for one in ahead) > 20
    assert pickle.dumps(state) == kept  # what was donated since is not it
    actions = [one["action"] for one in ahead]
    with made() as other:
        assert other.load_state(pickle.loads(kept)) is None
        assert digest([other.step(action) for action in actions]) == digest(ahead)
    answer = subprocess.run(
        [sys.executable, "-c", FRESH],
        input=pickle.dumps((state, actions)),
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert answer.stdout.decode() == f"{digest(ahead)}\n", answer.stderr.decode()  # and jaxmarl's words are not there


def test_an_illegal_action_is_refused(env) -> None:
    step = env.reset(seed=0)
    action = chosen(np.random.default_rng(0), step)
    action[2, 1] = EYE[6]
    with pytest.raises(
        ValueError, match=r"environment 2, agent 1 \(alive\): action 6 is not allowed; .* 0, 1, 2, 3, 4$"
    ):
        env.step(action)
    step = env.step(chosen(np.random.default_rng(0), step))  # nothing has happened
    assert not step["first"].any()
    with pytest.raises(ValueError, match=r"shape \(4, 8\), not \(4, 3, 8\)"):
        env.step(action[:, 0])
    with pytest.raises(ValueError, match="NaN"):
        env.step(np.full_like(action, np.nan))

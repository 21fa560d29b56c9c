"""SMAX: records with an agents axis, one compiled step, episodes that follow from seeds, snapshots, what ends an episode."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from env_adapters import TaskError, make, make_vec, tasks
from env_adapters.__main__ import main
from env_adapters.seeds import episode_seed
from env_adapters.smax import Smax
from env_adapters.smax_program import cache_folder, game, program, runtime
from env_adapters.smax_scenarios import SCENARIOS, TYPES
from env_adapters.step import digest
from env_adapters.team import choose

N, AGENTS, ACTIONS, NORTH, STOP = 16, 3, 8, 0, 4  # environments of most tests; 3m
RANGE, MAP = 5.0, 32.0  # a marine's, and a side
DEFAULT = {"see_enemy_actions": True, "walls_cause_death": True, "attack_mode": "closest"}
EYE = np.eye(ACTIONS, dtype=np.float32)


def made(**options):
    return make_vec("smax:3m", N, **options)


def chosen(env, rng, step):
    """Each agent's action, uniform among those that its mask allows."""
    return choose(env.action_spec, rng.random(step["action_mask"].shape), step["action_mask"])


def play(env, step, steps, rng):
    """The records of so many random steps."""
    found = []
    for _ in range(steps):
        step = env.step(chosen(env, rng, step))
        found.append(step)
    return found


def legal(place, alive):
    """What may be chosen where units stand (..., 6, 2) and live (..., 6), and how far each is from being in range."""
    far = np.linalg.norm(place[..., :AGENTS, None, :] - place[..., None, AGENTS:, :], axis=-1)
    mask = np.empty((*far.shape[:-1], ACTIONS), bool)
    mask[..., :STOP] = alive[..., :AGENTS, None]
    mask[..., STOP] = True
    mask[..., STOP + 1 :] = (far < RANGE) & alive[..., :AGENTS, None] & alive[..., None, AGENTS:]
    return mask, np.abs(far - RANGE)


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
        steps.append(env.step(chosen(env, rng, steps[-1])))
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
    begun = steps["vector"][first]
    assert len({one.tobytes() for one in begun}) == len(begun) > N  # no two episodes begin alike


def test_masks_hold_moves_of_the_living_and_enemies_in_range(records) -> None:
    steps, units = records
    expected, _ = legal(units["state.unit_positions"], units["state.unit_alive"])
    assert (steps["action_mask"] == expected).all()
    assert expected[..., STOP + 1 :].any()


def test_a_hundred_thousand_actions_within_the_masks_are_taken_and_legal(env) -> None:
    """The state in the records tells where units are, to within float32."""
    rng, step, acts = np.random.default_rng(4), env.reset(seed=4), 0
    while acts < 100_000:
        units = step["state"][:, : 6 * 10].reshape(N, 6, 10)
        expected, edge = legal(units[..., 1:3] * MAP, units[..., 0] > 0)
        odd = step["action_mask"] != expected
        assert not odd[..., : STOP + 1].any() and not (odd[..., STOP + 1 :] & (edge > 1e-4)).any()
        step = env.step(chosen(env, rng, step))
        acts += int((~step["first"]).sum()) * AGENTS


def test_the_dead_see_nothing_and_only_stop(records) -> None:
    steps, units = records
    assert (steps["alive"] == units["state.unit_alive"][..., :AGENTS]).all()
    dead = ~steps["alive"]
    assert dead.sum() > 50
    assert not steps["vector"][dead].any()
    assert (steps["action_mask"][dead] == (np.arange(ACTIONS) == STOP)).all()
    assert (steps["vector"][~dead].any(-1)).all()


def test_pictures_show_every_unit_and_agents_those_in_their_sight(env, records) -> None:
    """Against the units' own state behind the records."""
    steps, units = records
    pictures, shown = env.program.pictures, 0
    for time, row in [(at, at % N) for at in range(0, 150, 7)]:
        place, alive = units["state.unit_positions"][time, row] / MAP, units["state.unit_alive"][time, row]
        health = units["state.unit_health"][time, row] / 45.0
        expected = np.column_stack([health, place])
        found = pictures.units(steps["state"][time, row])
        np.testing.assert_allclose(found[:, :3], np.where(alive[:, None], expected, 0), atol=1e-6)
        far = np.linalg.norm((place[:, None] - place[None]) * MAP, axis=-1)
        for agent in range(AGENTS):
            order = [*(i for i in range(6) if i != agent), agent]
            there = (alive & alive[agent] & (far[agent] < 9.0))[order]
            seen = pictures.seen(steps["vector"][time, row, agent])
            assert np.array_equal(seen[:, 4] == 1, there)
            np.testing.assert_allclose(seen[:, :3], np.where(there[:, None], expected[order], 0), atol=1e-6)
            shown += there.sum()
    assert shown > 100
    assert set(env.drawable) <= set(steps)
    assert env.drawn("state", steps["state"][:2]).shape == (2, N, 160, 160, 3)
    assert env.drawn("vector", steps["vector"][0, 0]).shape == (AGENTS, 160, 160, 3)


def focused(env, rng, step):
    """Attack the first enemy in range, else wait for one: wins some battles and loses some."""
    scores = np.zeros(step["action_mask"].shape) + [0, 0, 0, 0, 1, 4, 3, 2]
    return choose(env.action_spec, scores, step["action_mask"])


@pytest.mark.parametrize(("policy", "won"), [(chosen, 0), (focused, 5)])
def test_ends_are_as_the_units_say(env, policy, won) -> None:
    rng, step, found, lost = np.random.default_rng(6), env.reset(seed=6), 0, 0
    for _ in range(100):
        step = env.step(policy(env, rng, step))
        units = env.state()["units"]
        ours, theirs = (units["state.unit_alive"][:, part].any(1) for part in (slice(AGENTS), slice(AGENTS, None)))
        assert (step["terminal"] == ~(ours & theirs)).all()
        assert (step["won"] == (ours & ~theirs)).all()
        assert (step["last"] == (step["terminal"] | (units["state.step"] > 100))).all()
        assert (step["reward"][step["won"]] >= 1).all() and not (step["reward"][~step["won"]] >= 1).any()
        found, lost = found + step["won"].sum(), lost + (step["terminal"] & ~step["won"]).sum()
    assert found >= won and lost > 5


@pytest.mark.parametrize("time", [3, 100])
@pytest.mark.parametrize(("ally", "enemy", "won"), [(1, 1, False), (1, 45, False), (45, 1, True), (45, 45, False)])
def test_who_dies_at_once_draws_and_an_end_at_the_limit_is_an_end(env, ally, enemy, won, time) -> None:
    """Three duels, each within range of its own enemy alone; the next shots are deadly where health is 1."""
    env.reset(seed=0)
    state = env.state()
    units = state["units"]
    rows = np.array([9.0, 16.0, 23.0])
    units["state.unit_positions"][:] = [[14, y] for y in rows] + [[18, y] for y in rows]
    units["state.unit_health"][:, :AGENTS], units["state.unit_health"][:, AGENTS:] = ally, enemy
    units["state.unit_weapon_cooldowns"][:], units["state.step"][:] = 0, time
    state["step"]["action_mask"][:] = True
    env.load_state(state)
    step = env.step(EYE[np.tile([5, 6, 7], (N, 1))])
    over = 1 in (ally, enemy)
    assert (step["terminal"] == over).all() and (step["won"] == won).all()
    assert (step["last"] == (over or time == 100)).all()
    assert (step["alive"] == (ally > 1)).all()
    assert (step["reward"] >= 1).all() == won


def test_two_instances_give_the_same_records(records) -> None:
    steps, _ = records
    with made() as env:
        rng, step = np.random.default_rng(0), env.reset(seed=7)
        again = [step, *play(env, step, 150, rng)]
        assert all((np.stack([one[name] for one in again]) == steps[name]).all() for name in steps)
        assert not (env.reset(seed=8)["vector"] == steps["vector"][0]).all()
    step = program("3m", N, **DEFAULT).step
    assert step._cache_size() == 1  # noqa: SLF001  # compiled once for all instances of this size


FRESH = """
import io, pickle, sys
from env_adapters import make_vec
from env_adapters.smax_program import program
from env_adapters.step import digest

state, actions = pickle.load(sys.stdin.buffer)
sys.stderr = mine = io.StringIO()
with make_vec("smax:3m", len(state["episode"])) as env:
    assert env.load_state(state) is None
    print(digest([env.step(action) for action in actions]), sys.stderr is mine)
"""


@pytest.fixture(scope="module")
def snapshot(env):
    """A state in the middle of episodes, and what 200 steps give from there."""
    rng = np.random.default_rng(1)
    before = play(env, env.reset(seed=3), 37, rng)
    state = env.state()
    kept = pickle.dumps(state)
    ahead = play(env, before[-1], 200, rng)
    assert pickle.dumps(state) == kept  # the memory that the steps were given is not the snapshot's
    assert sum(one["last"].sum() for one in ahead) > 20
    return state, ahead


def test_a_snapshot_goes_on_bit_for_bit(snapshot) -> None:
    state, ahead = snapshot
    with made() as other:
        assert other.load_state(pickle.loads(pickle.dumps(state))) is None
        assert digest([other.step(one["action"]) for one in ahead]) == digest(ahead)


def test_a_snapshot_goes_on_in_a_fresh_process_which_says_nothing_else(snapshot) -> None:
    state, ahead = snapshot
    given = pickle.dumps((state, [one["action"] for one in ahead]))
    run = [sys.executable, "-c", FRESH]
    answer = subprocess.run(run, input=given, capture_output=True, check=False, timeout=300)
    assert answer.stdout.decode() == f"{digest(ahead)} True\n", answer.stderr.decode()


def test_an_illegal_action_is_refused(env) -> None:
    step = env.reset(seed=0)
    good = chosen(env, np.random.default_rng(0), step)
    bad = good.copy()
    bad[2, 1] = EYE[6]
    with pytest.raises(
        ValueError, match=r"environment 2, agent 1: action 6 is masked out; it may choose 0, 1, 2, 3, 4$"
    ):
        env.step(bad)
    for odd, told in ((good[:, 0], r"shape \(16, 8\), not \(16, 3, 8\)"), (np.full_like(good, np.nan), "NaN")):
        with pytest.raises(ValueError, match=told):
            env.step(odd)
    assert not env.step(good)["first"].any()  # nothing had happened
    assert (env.reset(seed=0)["vector"] == step["vector"]).all()


def test_hiding_leads_to_the_limit_and_no_termination(env) -> None:
    """North until the wall is near, then still: the enemy passes by, and does not see every team."""
    step, hidden = env.reset(seed=0), np.ones(N, bool)
    for time in range(1, 102):
        north = step["vector"][..., -8] * MAP < 29  # own place, behind health and before cooldown and type
        step = env.step(EYE[np.where(north & step["alive"], NORTH, STOP)])
        assert not (step["last"] & hidden & ~step["terminal"]).any() or time == 101
        hidden &= ~step["terminal"]
    assert 3 < hidden.sum() < N
    units = env.state()["units"]["state.unit_alive"][hidden]
    assert step["last"][hidden].all() and units[:, :AGENTS].any(1).all() and units[:, AGENTS:].any(1).all()
    assert not (step["terminal"] | step["won"])[hidden].any()
    assert env.protocol["max_steps"] == 101
    after = env.step(EYE[np.where(step["last"][:, None], [7, 7, 7], STOP)])  # ignored after a last one, legal or not
    assert after["first"][hidden].all() and not after["action"][hidden].any()


def test_records_are_those_of_the_package_driven_by_hand(env) -> None:
    """One battle of each row alone, through JaxMARL's own functions, under the keys that the seeds say."""
    jax = runtime()
    alone = game("3m", **DEFAULT)
    rng, step = np.random.default_rng(5), env.reset(seed=11)
    ours = [step, *play(env, step, 12, rng)]
    assert sum(one["reward"][:2] for one in ours).all() and not any(one["last"][:2].any() for one in ours)
    for row in range(2):
        key, now = jax.random.split(jax.random.PRNGKey(episode_seed(11, row, 0)))
        seen, state = alone.reset(now)
        for time, record in enumerate(ours):
            if time:
                key, now = jax.random.split(key)
                actions = {f"ally_{i}": record["action"][row, i].argmax() for i in range(AGENTS)}
                seen, state, reward, done, _ = alone.step_env(now, state, actions)
                assert record["reward"][row] == pytest.approx([float(reward[f"ally_{i}"]) for i in range(AGENTS)])
                assert bool(done["__all__"]) == record["last"][row]
            for i in range(AGENTS):
                assert record["vector"][row, i] == pytest.approx(np.asarray(seen[f"ally_{i}"]), abs=1e-5)
            world = np.asarray(seen["world_state"])
            units, mine = world[:60].reshape(6, 10), record["state"][row, :60].reshape(6, 10)
            assert mine[:, [0, *range(4, 10)]] == pytest.approx(units[:, [0, *range(4, 10)]], abs=1e-5)
            assert mine[:, 1:3] * MAP == pytest.approx(units[:, 1:3], abs=1e-4)
            assert mine[:, 3] == pytest.approx(np.clip(units[:, 3] / 0.61, 0, 1), abs=1e-5)
            assert record["state"][row, 60:].tolist() == world[60:].tolist() == [0] * 3 + [1] * 3 + [0] * 6
    record = ours[-1]
    while not record["first"][0]:
        record = env.step(chosen(env, rng, record))
    _, now = jax.random.split(jax.random.PRNGKey(episode_seed(11, 0, 1)))  # its second episode
    assert record["vector"][0, 0] == pytest.approx(np.asarray(alone.reset(now)[0]["ally_0"]), abs=1e-5)


def test_a_state_is_of_one_task_and_number_and_nothing_is_sent_twice(env) -> None:
    rng, step = np.random.default_rng(0), env.reset(seed=0)
    state = env.state()
    half = {name: array[:2] for name, array in state["units"].items()}
    with pytest.raises(TaskError, match="use the task and the number"):
        env.load_state(state | {"units": half, "episode": state["episode"][:2]})
    with pytest.raises(RuntimeError, match="nothing was sent"):
        env.receive()
    env.send(chosen(env, rng, step))
    for refused in (lambda: env.send(chosen(env, rng, step)), env.state):
        with pytest.raises(RuntimeError, match="call receive first"):
            refused()
    assert not env.receive()["first"].any()
    assert (env.cut.tolist(), env.take_faults(), env.failure, env.get("rule"), env.pids()) == (
        [False] * N,
        [],
        "",
        [None] * N,
        [],
    )
    with pytest.raises(TaskError, match="seed is -1"):
        env.reset(seed=-1)


def test_rewards_are_scaled_and_a_closed_batch_says_so(env) -> None:
    step = env.reset(seed=2)
    plain = play(env, step, 30, np.random.default_rng(2))
    with made(reward_scale=10.0) as other:
        scaled = play(other, other.reset(seed=2), 30, np.random.default_rng(2))
        assert other.protocol["reward_scale"] == 10.0
    total, tenfold = (sum(one["reward"].sum() for one in some) for some in (plain, scaled))
    assert total > 0 and tenfold == pytest.approx(10 * total, rel=1e-5)
    other.close()
    with pytest.raises(RuntimeError, match="call reset"):
        other.step(plain[0]["action"])


def test_options_reach_the_game() -> None:
    runtime()
    other = game("2m_vs_1z", see_enemy_actions=False, walls_cause_death=False, attack_mode="random")
    assert (other.see_enemy_actions, other.walls_cause_death, other.attack_mode) == (False, False, "random")
    assert Smax.__init__.__kwdefaults__ == DEFAULT | {"reward_scale": 1.0}


def test_scenarios_have_the_sizes_and_units_that_their_names_say() -> None:
    runtime()
    from jaxmarl.environments.smax.smax_env import MAP_NAME_TO_SCENARIO

    shipped = {name for name, one in SCENARIOS.items() if one.shipped}
    assert shipped <= set(MAP_NAME_TO_SCENARIO) and not (set(SCENARIOS) - shipped) & set(MAP_NAME_TO_SCENARIO)
    assert {f"smax:{name}" for name in SCENARIOS} <= set(tasks())
    for name, one in SCENARIOS.items():
        env = game(name, **DEFAULT)
        units = env.num_allies + env.num_enemies
        assert env.obs_size == 13 * (units - 1) + 10 and env.state_size == 12 * units
        assert env.num_ally_actions == 5 + env.num_enemies
        if not one.shipped:
            assert (env.num_allies, env.num_enemies) == one.sides
    letters = {"m": "marine", "s": "stalker", "z": "zealot"}
    for name in ("2m_vs_1z", "3s_vs_3z", "3s_vs_4z", "8m_vs_9m"):
        expected = [letters[part[-1]] for part in name.split("_vs_") for _ in range(int(part[:-1]))]
        assert [TYPES[kind] for kind in np.asarray(game(name, **DEFAULT).scenario)] == expected


@pytest.mark.parametrize(("name", "kinds"), [("protossish", {2, 3}), ("terranish", {0, 1}), ("zergish", {4, 5})])
def test_a_race_draws_its_own_units_alike_for_both_sides(name, kinds) -> None:
    jax = runtime()
    env, drawn = game(f"{name}_5_vs_5", **DEFAULT), set()
    for seed in range(3):
        units = np.asarray(env.unit_type_generator.generate(jax.random.PRNGKey(seed))).tolist()
        assert units[:5] == units[5:]
        drawn |= set(units)
    assert drawn == kinds


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("smax:8m_vs_8m", {}, "smax has no scenario '8m_vs_8m'; close: smax:8m_vs_9m"),
        ("smax:", {}, "it has 3m, 8m"),
        ("smax:MMM", {}, "smax has no 'MMM', for it needs medivacs, which heal"),
        ("smax:2c_vs_64zg", {}, "colossi"),
        ("smax:protoss_5_vs_5", {}, "nearest: smax:protossish_5_vs_5"),
        ("3m", {}, "close: .*smax:3m"),
        (
            "smax:3m",
            {"see_all": True},
            "no option 'see_all'; it has see_enemy_actions, walls_cause_death, attack_mode, ",
        ),
        ("smax:3m", {"attack_mode": "weakest"}, 'attack_mode is .weakest.; it is "closest" or "random"'),
        ("smax:3m", {"walls_cause_death": 1}, "an int|a int; it is bool"),
        ("smax:3m", {"reward_scale": 0.0}, "reward_scale is 0"),
        ("smax:3m", {"grids": ["vector"]}, "grids names 'vector'"),
    ],
)
def test_mistakes_are_one_sentence(task, options, message) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        make_vec(task, 2, **options)
    assert "\n" not in str(caught.value)


def test_one_battle_alone_is_no_gymnasium_environment(capsys) -> None:
    with pytest.raises(TaskError, match=r"made in batches: make_vec\('smax:3m', 1\), not make"):
        make("smax:3m", see_enemy_actions=False)
    assert main(["check", "smax:3m"]) == 2 and "made in batches" in capsys.readouterr().err


def test_workers_are_left_out_and_wishes_granted() -> None:
    with pytest.warns(UserWarning, match="stays in this process"), made(workers=2) as env:
        assert env.pids() == []
    with made(wishes={"reward_scale": 10.0, "protocol": "storm"}, workers=0, restore=False, timeout=1.0) as env:
        assert env.protocol["reward_scale"] == 10.0


def test_what_is_missing_or_elsewhere_is_said(monkeypatch) -> None:
    jax = runtime()
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        with pytest.raises(TaskError, match=r"JAX has been used on the gpu .* JAX_PLATFORMS=cpu"):
            make_vec("smax:3m", 77)
    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    with pytest.raises(TaskError, match=r"smax needs jaxmarl; install `env-adapters\[smax\]`"):
        make_vec("smax:3m", 77)


def test_compiled_steps_are_kept_where_one_says(env, monkeypatch, tmp_path) -> None:
    env.reset(seed=0)
    folder = cache_folder()
    assert folder is not None and folder.is_relative_to(os.environ["ENV_ADAPTERS_JAX_CACHE"])
    assert list(folder.glob("jit_step-*"))
    monkeypatch.setenv("ENV_ADAPTERS_JAX_CACHE", "off")
    assert cache_folder() is None
    monkeypatch.delenv("ENV_ADAPTERS_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "env-adapters" / "jax" / folder.name
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert Path.home() / ".cache" in (cache_folder() or Path()).parents

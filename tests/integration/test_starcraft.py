"""SMACv2's own code, from the checkout that SMACV2_SOURCE names, against a StarCraft II server that speaks the real protocol."""

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from env_adapters import make_vec

WIN, LOSS = {"ALLIES": 20, "ENEMIES": 2}, {"ALLIES": 1, "ENEMIES": 20}
STANDING = {"ALLIES": 0, "ENEMIES": 0, "WALK": 0}


def attack(step):
    """Attack if one can, else go towards the nearest enemy; of one environment, whose state says where they are."""
    mask, state = step["action_mask"][0], step["state"][0]
    agents, width = mask.shape
    foes, units = width - 6, state.size - agents * width
    # an enemy shows a health, x, y, maybe a shield and types, an ally a cooldown more; one race has shields, another has not
    more = next(more for more in (1, 0) if (units - agents * more) % (agents + foes) == 0)
    size = (units - agents * more) // (agents + foes)
    allies, rest = np.split(state[:units], [agents * (size + more)])
    enemies = rest.reshape(foes, size)
    there = enemies[enemies[:, 0] > 0, 1:3]
    worth = np.ones(mask.shape)
    worth[:, 6:] = 3
    for agent, place in enumerate(allies.reshape(agents, -1)[:, 2:4]):
        if len(there):
            way = there[np.linalg.norm(there - place, axis=1).argmin()] - place
            east, north = (4 if way[0] > 0 else 5), (2 if way[1] > 0 else 3)
            worth[agent, east if abs(way[0]) > abs(way[1]) else north] = 2
    return np.eye(width, dtype=np.float32)[(worth * mask).argmax(-1)][None]


def stand(step):
    """Stop, or nothing for the dead."""
    mask = step["action_mask"]
    return np.eye(mask.shape[-1], dtype=np.float32)[mask[..., :2].argmax(-1)]


def play(env, step, policy=attack, most=400):
    """Records up to the end of the first environment's episode."""
    records = [step]
    while not records[-1]["last"][0]:
        assert len(records) < most, "the episode does not end"
        records.append(env.step(policy(records[-1])))
    return records


@pytest.mark.parametrize(
    ("task", "agents", "sizes", "limit"),
    [("smac:3m", 3, (30, 9, 48), 60), ("smacv2:protoss_5_vs_5", 5, (92, 11, 130), 200)],
)
@pytest.mark.parametrize("won", [True, False])
def test_whole_episodes_end_as_the_battle_does(starcraft, task, agents, sizes, limit, won) -> None:
    starcraft(WIN if won else LOSS)
    with make_vec(task, 1) as env:
        assert (env.agents, env.noop, env.outcomes, env.protocol["max_steps"]) == (agents, 0, ("won",), limit)
        assert (env.observation_space["vector"].shape, env.action_spec.size, env.state_size) == (
            (sizes[0],),
            *sizes[1:],
        )
        step = env.reset(seed=0)
        for episode in range(3):
            assert step["first"][0] and step["alive"].all() and not step["action_mask"][..., 0].any()
            records = play(env, step)
            last = records[-1]
            assert last["terminal"][0] and last["won"][0] == won and not any(one["won"][0] for one in records[:-1])
            assert last["alive"].any() == won and (won or (last["action_mask"].sum(-1) == 1).all())
            for one in records:
                dead = ~one["alive"]
                assert not one["vector"][dead].any() and (one["action_mask"][dead] == (np.arange(sizes[1]) == 0)).all()
                assert one["vector"][~dead].any(-1).all() and np.isfinite(one["state"]).all() and one["state"].any()
                assert (one["reward"] == one["reward"][:, :1]).all()
            score = sum(env.score(one)[0] for one in records)
            # a win is worth 20: of every episode where all have the same enemies, else of the first
            assert not won or (episode and task != "smac:3m") or score == pytest.approx(20, abs=1e-3)
            assert won or 0 <= score < 10
            step = env.step(attack(last))
        assert env.take_faults() == [] and env.protocol["starcraft"] == "build 75689"


@pytest.mark.parametrize("race", ["terran", "zerg"])
def test_the_other_races_play_whole_episodes(starcraft, race) -> None:
    starcraft({"ALLIES": 20, "ENEMIES": 1})
    with make_vec(f"smacv2:{race}_5_vs_5", 1) as env:
        assert (env.observation_space["vector"].shape, env.action_spec.size, env.state_size) == ((82,), 11, 120)
        step = env.reset(seed=0)
        for _ in range(2):
            step = play(env, step)[-1]
            assert step["terminal"][0] and step["won"][0]
            step = env.step(attack(step))
        assert env.take_faults() == []


@pytest.mark.parametrize(
    ("task", "observation", "state", "types"),
    [
        ("2s3z", 80, 120, [2, 3]),
        ("1c3s5z", 162, 270, [1, 3, 5]),
        ("MMM", 160, 290, [2, 7, 1]),
        ("bane_vs_bane", 336, 984, [4, 20]),
    ],
)
def test_maps_of_several_types_have_smacs_numbers(starcraft, task, observation, state, types) -> None:
    """Which SMACv2's code counts from the enemies' types: its observations of 2s3z lie outside their array."""
    starcraft(STANDING)
    kinds = np.repeat(np.eye(len(types)), types, 0)
    rng = np.random.default_rng(0)
    with make_vec(f"smac:{task}", 1) as env:
        assert (env.observation_space["vector"].shape, env.state_size) == ((observation,), state)
        step = env.reset(seed=0)
        for _ in range(12):
            assert (step["vector"][0, :, -len(types) :] == kinds).all()
            scores = rng.random(step["action_mask"].shape) * step["action_mask"]
            step = env.step(np.eye(env.action_spec.size, dtype=np.float32)[scores.argmax(-1)])
        assert env.take_faults() == []


@pytest.mark.parametrize("task", ["MMM", "bane_vs_bane"])
def test_on_smacs_maps_an_agent_sees_every_enemy_within_its_sight(starcraft, task) -> None:
    """SMACv2's code blanks those that come before one whom nobody has seen, or that lies dead out of sight."""
    starcraft({"ALLIES": 9, "ENEMIES": 6})
    seen = hidden = 0
    with make_vec(f"smac:{task}", 1) as env:
        step = env.reset(seed=0)
        agents, foes, size = env.agents, env.action_spec.size - 6, env.state_size
        for _ in range(40):
            step = env.step(attack(step))
            width = (size - agents * env.action_spec.size - agents) // (agents + foes)  # of an enemy in the state
            state = step["state"][0]
            mine = state[: agents * (width + 1)].reshape(agents, -1)
            theirs = state[agents * (width + 1) :][: foes * width].reshape(foes, -1)
            far = 32 * np.linalg.norm(mine[:, None, 2:4] - theirs[None, :, 1:3], axis=-1)
            there = (mine[:, :1] > 0) & (theirs[None, :, 0] > 0)
            shown = step["vector"][0, :, 4 : 4 + foes * (width + 2)].reshape(agents, foes, -1).any(-1)
            sure = abs(far - 9) > 0.01
            assert (shown == (there & (far < 9)))[sure].all()
            seen, hidden = seen + shown.sum(), hidden + (there & (far > 9)).sum()
    assert seen > 100 and hidden > 100


OTHER = """
import os, pickle, sys
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
import numpy as np

which, task, out = sys.argv[1:]
if which == "smac":
    sys.path.insert(0, os.environ["SMAC_SOURCE"])
    from absl import flags
    flags.FLAGS(["smac"])
    from smac.env import StarCraft2Env
    env = StarCraft2Env(map_name=task)
    reset, observations, masks, state = env.reset, env.get_obs, env.get_avail_actions, env.get_state
    def step(actions):
        reward, over, info = env.step(actions)
        return reward, over, info["battle_won"]
else:
    from env_adapters.smac_game import Game
    env = Game({"map_name": task, "difficulty": "7"})
    observations, masks, state = env.observations, env.masks, env.state
    def reset():
        env.reset(np.random.default_rng(0))
    def step(actions):
        reward, terminal, late, won = env.step(actions)
        return reward, terminal or late, won
records = []
for _ in range(2):
    reset()
    over = False
    while not over:
        mask = np.array(masks(), bool)
        actions = np.arange(mask.shape[1])
        scores = np.random.default_rng(len(records)).random(mask.shape) + 2 * (actions >= 6) + (actions == 4)
        records.append([np.array(observations(), np.float32), np.array(state(), np.float32), mask])
        records[-1] += step(np.where(mask, scores, -1).argmax(1).tolist())
        over = records[-1][4]
with open(out, "wb") as file:
    pickle.dump(records, file)
env.close()
"""


@pytest.mark.skipif(not os.environ.get("SMAC_SOURCE"), reason="SMAC_SOURCE names no checkout of SMAC, the first one")
@pytest.mark.parametrize("task", ["3m", "2m_vs_1z", "2s3z", "1c3s5z", "MMM", "bane_vs_bane"])
def test_smacs_maps_are_as_smacs_own_code_has_them(starcraft, task, tmp_path) -> None:
    """Observations, states, masks, rewards and ends of two episodes, bit for bit, by the two codes."""
    starcraft({"ALLIES": 9, "ENEMIES": 6})
    found = []
    for which in ("smac", "smacv2"):
        file = tmp_path / which
        subprocess.run([sys.executable, "-c", OTHER, which, task, file], check=True, timeout=120)
        found.append(pickle.loads(file.read_bytes()))
    assert len(found[0]) == len(found[1]) > 10
    for one, two in zip(*found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_the_limit_truncates(starcraft) -> None:
    starcraft(STANDING)
    with make_vec("smac:3m", 1) as env:
        records = play(env, env.reset(seed=0), stand)
        assert len(records) == 61  # the reset's, and the map's limit of 60
        assert not records[-1]["terminal"][0] and not records[-1]["won"][0] and records[-1]["alive"].all()


def test_a_battle_won_with_the_last_step_is_terminal(starcraft) -> None:
    """Where both ends come at once the battle's counts, as in the package."""
    starcraft({"ALLIES": 45, "ENEMIES": 0, "WALK": 0})
    with make_vec("smac:2m_vs_1z", 1) as env:
        step, records = env.reset(seed=0), 0
        limit = env.protocol["max_steps"]
        walked = 0
        while not step["last"][0]:
            near = step["action_mask"][0, :, 6:].any()
            wait = near and records < limit - 2  # 150 of health and shield are two volleys of two marines, one a step
            step = env.step(stand(step) if wait else attack(step))
            records, walked = records + 1, walked + (not near)
        assert walked > 3 and records == limit
        assert step["terminal"][0] and step["won"][0]


def test_draws_of_smacv2_follow_from_the_seed(starcraft) -> None:
    """Teams and places, in another process, and after other episodes; the limit's enemies stand where they appear."""
    starcraft(STANDING)

    def begun(seeds):
        with make_vec("smacv2:zerg_5_vs_5", 1) as env:
            return [env.reset(seed=seed)["state"][0] for seed in seeds]

    one, two = begun([3, 4, 5]), begun([5, 3])
    assert (one[0] == two[1]).all() and (one[2] == two[0]).all()
    assert not (one[0] == one[1]).all() and not (one[1] == one[2]).all()


def test_a_game_that_is_killed_is_a_truncation_and_another_begins(starcraft) -> None:
    installed = starcraft(STANDING)
    with make_vec("smac:3m", 2, workers=2) as env:
        step = env.reset(seed=0)
        for _ in range(5):
            before, step = step, env.step(stand(step))
        first = installed.games()
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        action = stand(step)
        before, step = step, env.step(action)
        cut = step["last"]
        assert cut.sum() == 1 and not step["terminal"].any() and not step["reward"].any()
        assert (step["vector"][cut] == before["vector"][cut]).all() and (step["action"] == action).all()
        told = env.take_faults()
        assert (
            len(told) == 2 and "StarCraft II is gone" in told[0] and "made anew" in told[0] and "truncation" in told[1]
        )
        step = env.step(stand(step))
        assert (step["first"] == cut).all() and step["alive"].all()
        for _ in range(3):
            step = env.step(stand(step))
        second = installed.games()
        assert len(second) == 2 and first[1] in second and first[0] not in second
        assert env.take_faults() == [] and env.failure == ""
    assert installed.gone(second)


def test_a_game_that_hangs_is_a_truncation_and_its_worker_is_replaced(starcraft) -> None:
    installed = starcraft(STANDING)
    with make_vec("smac:3m", 1, timeout=10) as env:
        step = env.step(stand(env.reset(seed=0)))
        (hung,) = installed.games()
        os.kill(hung, signal.SIGSTOP)
        worker = env.pids()
        step = env.step(stand(step))
        assert step["last"].all() and not step["terminal"].any()
        assert "gave no answer within its timeout" in env.take_faults()[0]
        assert env.pids() != worker and installed.gone([hung])  # though it was stopped, and its worker killed
        step = env.step(stand(step))
        assert step["first"].all() and len(installed.games()) == 1
        assert env.step(stand(step))["alive"].all() and env.take_faults() == []


def test_games_end_with_their_worker(starcraft) -> None:
    installed = starcraft(STANDING)
    with make_vec("smac:3m", 1) as env:
        step = env.reset(seed=0)
        mine = installed.games()
        assert os.getsid(mine[0]) == mine[0]  # Ctrl-C ends the run, which ends the game
        os.kill(env.pids()[0], signal.SIGKILL)
        step = env.step(stand(step))
        assert step["last"].all() and not step["terminal"].any() and installed.gone(mine)


def test_a_reset_within_the_first_episode_starts_no_second_game(starcraft) -> None:
    installed = starcraft(WIN)
    with make_vec("smac:3m", 1) as env:
        env.reset(seed=0)
        mine = installed.games()
        env.step(stand(env.reset(seed=1)))
        records = play(env, env.reset(seed=2))
        assert installed.games() == mine and len(mine) == 1
        assert sum(env.score(one)[0] for one in records) == pytest.approx(20, abs=1e-3)


def test_a_resumed_run_is_told_that_the_battle_is_lost(starcraft) -> None:
    starcraft(STANDING)
    with make_vec("smac:3m", 1) as env:
        step = env.step(stand(env.reset(seed=0)))
        state = env.state()
        env.load_state(state)
        told = env.take_faults()
        assert len(told) == 1 and "could not be restored" in told[0]
        step = env.step(stand(step))
        assert step["last"].all() and not step["terminal"].any()
        assert env.step(stand(step))["first"].all()


def test_this_process_keeps_its_own_protobuf(starcraft) -> None:
    from google.protobuf.internal import api_implementation

    starcraft(STANDING)
    with make_vec("smac:3m", 1, workers=0) as env:
        env.reset(seed=0)
        assert len(env.pids()) == 1  # a worker all the same
        with pytest.raises(
            ValueError, match=r"environment 0, agent 0: action 0 is masked out; it may choose 1, 2, 3, 4, 5"
        ):
            env.step(np.eye(9, dtype=np.float32)[np.zeros((1, 3), np.int64)])
    assert api_implementation.Type() == "upb" and "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" not in os.environ

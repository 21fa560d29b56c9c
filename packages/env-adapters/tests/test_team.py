"""The agents' axis: every value arrives at its environment, agent and time; masks, absence, faults and snapshots with it."""

import os
import pickle
import signal

import gymnasium
import numpy as np
import pytest
from env_adapters import CheckError, TaskError, check_env, make, make_vec
from env_adapters.seeds import episode_seed
from env_adapters.team import TeamEnv, choose
from gymnasium import spaces

AGENTS, ACTIONS, LENGTH = 3, 4, 5


def coded():
    """A class, made here so that it travels to the workers by value."""
    import numpy as np
    from env_adapters.team import TeamEnv
    from gymnasium import spaces

    class Coded(TeamEnv):
        """Shows the episode's seed, the agent and the time; after `time` steps agent i may not do action (i + time) % 4.

        Agent 2 leaves at time 2. `trouble`: the time at which a step raises, once this instance's first episode is over.
        """

        cheap = True
        agents, noop, state_size = 3, 0, 2
        signals, agent_signals, outcomes = ("won", "hit"), ("hit",), ("won",)
        action_space = spaces.Discrete(4, start=10)
        observation_space = spaces.Dict(
            vector=spaces.Box(-1e9, 1e9, (3,)),
            place=spaces.Discrete(9, start=1),
            state=spaces.Box(-1, 1, (1,)),
            image=spaces.Box(0, 255, (16, 16, 3), np.uint8),
        )

        def __init__(self, trouble: int = -1, noop: int | None = 0):
            self.trouble, self.noop, self.episodes, self.sent = trouble, noop, 0, []

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.seed, self.time = seed, 0
            self.episodes += 1
            return self.shown(), self.beside()

        def step(self, actions):
            self.sent.append(list(actions))
            self.time += 1
            if self.episodes > 1 and self.time == self.trouble:
                raise ConnectionError("nobody listens")
            rewards = np.arange(3) + 10.0 * self.time
            return self.shown(), rewards, self.time == 5, False, self.beside()

        def shown(self):
            agent = np.arange(3)
            return {
                "vector": np.stack([np.full(3, self.seed % 1000), agent, np.full(3, self.time)], -1).astype(np.float32),
                "place": agent + 1 + self.time,
                "state": np.full((3, 1), 0.5, np.float32),
                "image": np.broadcast_to((10 * agent + self.time)[:, None, None, None], (3, 16, 16, 3)).astype(
                    np.uint8
                ),
            }

        def beside(self):
            mask = np.ones((3, 4), bool)
            mask[np.arange(3), (np.arange(3) + self.time) % 4] = False
            alive = np.array([True, True, self.time < 2])
            state = np.array([self.seed % 1000, self.time], np.float32)
            hit = np.arange(3) == self.time
            return {"action_mask": mask, "alive": alive, "state": state, "won": self.time == 5, "hit": hit}

    return Coded


Coded = coded()


def random_actions(env, step, rng):
    """Masked-random action vectors (n, N, A)."""
    return choose(env.action_spec, rng.uniform(size=step["action"].shape), step.get("action_mask"))


def played(env, steps, seed=0, step=None):
    rng, run = np.random.default_rng(seed), [env.reset(seed) if step is None else step]
    for _ in range(steps):
        run.append(env.step(random_actions(env, run[-1], rng)))
    return run


def same(one, two):
    return all(
        one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)
        for one, two in zip(one, two, strict=True)
    )


def test_every_value_arrives_at_its_environment_agent_and_time():
    env, rng = make_vec(Coded, 4), np.random.default_rng(0)
    assert (env.agents, env.noop, env.state_size, env.outcomes, env.signals) == (3, 0, 2, ("won",), ("won", "hit"))
    assert env.action_spec.discrete == (4,) and env.observation_space["vector"].shape == (3,)
    assert env.protocol["agents"] == 3
    step = env.reset(seed=7)
    episode, time = 0, 0
    for _ in range(14):
        seeds = np.array([episode_seed(7, row, episode) % 1000 for row in range(4)])
        there = np.array([True, True, time < 2])
        expected = np.stack(np.broadcast_arrays(seeds[:, None], np.arange(3)[None], time), -1) * there[None, :, None]
        assert np.array_equal(step["vector"], expected)
        assert step["image"].shape == (4, 3, 16, 16, 3) and step["image"].dtype == np.uint8
        assert np.array_equal(step["image"][..., 3, 5, 1], np.tile((10 * np.arange(3) + time) * there, (4, 1)))
        assert np.array_equal(step["place"], np.tile((np.arange(3) + time) * there, (4, 1)))  # Discrete begins at 0
        assert np.array_equal(step["state"], np.stack([seeds, np.full(4, time)], -1))
        assert np.array_equal(step["alive"], np.tile(there, (4, 1)))
        mask = np.ones((3, 4), bool)
        mask[np.arange(3), (np.arange(3) + time) % 4] = False
        mask[2] = mask[2] if time < 2 else [True, False, False, False]
        assert np.array_equal(step["action_mask"], np.tile(mask, (4, 1, 1)))
        assert step["first"].tolist() == [time == 0] * 4 and step["last"].tolist() == [time == 5] * 4
        assert np.array_equal(step["terminal"], step["last"]) and step["terminal"].shape == (4,)
        assert np.array_equal(step["reward"], np.tile(np.arange(3) + 10 * time if time else np.zeros(3), (4, 1)))
        assert step["won"].tolist() == [time == 5] * 4
        assert np.array_equal(step["hit"], np.tile((np.arange(3) == time) & (time > 0), (4, 1)))
        assert np.array_equal(env.score(step), np.full(4, 1 + 10.0 * time if time else 0))
        action = random_actions(env, step, rng)
        after = env.step(action)
        if time == 5:
            assert not after["action"].any() and after["first"].all()
            episode, time = episode + 1, 0
        else:
            assert np.array_equal(after["action"], action)
            sent = [one[-1] for one in env.get("sent")]
            assert np.array_equal(np.array(sent) - 10, action.argmax(-1))
            time += 1
        step = after


def test_without_a_noop_an_absent_agent_may_do_anything():
    env = make_vec(Coded, 1, noop=None)
    assert played(env, 2)[-1]["action_mask"][0, 2].all()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_records(workers):
    with make_vec(coded(), 3, workers=workers) as far:
        assert same(played(far, 14), played(make_vec(Coded, 3), 14))


def test_a_masked_out_action_is_refused_by_name():
    env = make_vec(Coded, 2)
    step = env.reset(seed=0)
    fine = choose(env.action_spec, np.ones((2, 3, 4)), step["action_mask"])
    odd = fine.copy()
    odd[1, 2] = np.eye(4)[2]
    with pytest.raises(ValueError, match=r"environment 1, agent 2: action 2 is masked out; it may choose 0, 1, 3"):
        env.step(odd)
    step = env.step(fine)  # nothing was sent
    assert (step["vector"][..., 2] == 1).all()
    while not step["last"].all():
        step = env.step(choose(env.action_spec, np.ones((2, 3, 4)), step["action_mask"]))
    assert env.step(odd)["first"].all()  # after the last record an action is ignored


def test_masks_hold_under_masked_random_play():
    env, rng = make_vec(Coded, 8), np.random.default_rng(0)
    step, seen = env.reset(0), 0
    for _ in range(500):
        after = env.step(random_actions(env, step, rng))
        on = ~after["first"]
        seen += on.sum()
        assert (after["action"][on].astype(bool) & ~step["action_mask"][on]).sum() == 0
        assert (after["action_mask"].any(-1)).all()
        step = after
    assert seen > 3000


@pytest.mark.parametrize("workers", [0, 1])
def test_an_episode_that_raises_is_cut_in_its_own_row_alone(workers):
    options = {"trouble": 3}
    with make_vec(coded(), 2, workers=workers, **options) as env:
        run = played(env, 6)  # a whole episode and the next one's first record
        assert run[-1]["first"].all()
        run = played(env, 3, step=run[-1])
        before, cut = run[-2], run[-1]
        assert env.cut.all() and cut["last"].all() and not cut["terminal"].any() and not cut["first"].any()
        assert cut["reward"].shape == (2, 3) and not cut["reward"].any()
        assert not cut["won"].any() and not cut["hit"].any()
        for name in ("vector", "image", "place", "state", "action_mask", "alive"):
            assert np.array_equal(cut[name], before[name])
        assert len(env.take_faults()) == 4
        assert env.step(random_actions(env, cut, np.random.default_rng(0)))["first"].all()


def test_a_killed_worker_is_replaced_and_its_team_goes_on():
    with make_vec(coded(), 2, workers=2) as env:
        run = played(env, 2)
        os.kill(env.pids()[1], signal.SIGKILL)
        action = random_actions(env, run[-1], np.random.default_rng(3))
        cut = env.step(action)
        assert cut["last"].tolist() == [False, True] and cut["vector"][0, 0, 2] == 3
        assert np.array_equal(cut["vector"][1], run[-1]["vector"][1]) and np.array_equal(cut["action"], action)
        assert not cut["terminal"].any() and cut["reward"][1].tolist() == [0, 0, 0]
        assert any("was replaced" in told for told in env.take_faults())
        run = played(env, 12, step=cut)
        assert run[1]["first"].tolist() == [False, True]
        assert run[-1]["alive"].shape == (2, 3)


def test_a_reset_that_never_happens_looks_like_the_last_record():
    class Once(Coded):
        def reset(self, *, seed=None, options=None):
            if self.episodes:
                raise TaskError("the server is gone: start it")
            return super().reset(seed=seed)

        def snapshot(self):
            return {}

        def restore(self, state):
            pass

    env = make_vec(Once, 1)
    run = played(env, 6)
    assert env.failure == "the server is gone: start it"
    assert run[-1]["first"].all() and not run[-1]["last"].any() and not run[-1]["hit"].any()
    assert not run[-1]["reward"].any() and not run[-1]["action"].any()
    assert np.array_equal(run[-1]["action_mask"], run[-2]["action_mask"])


@pytest.mark.parametrize(("at", "workers"), [(0, 0), (3, 0), (5, 0), (8, 0), (8, 2)])
def test_a_state_goes_on_as_the_unbroken_run(at, workers):
    with make_vec(coded(), 2, workers=workers) as env:
        run = played(env, at)
        stored = pickle.dumps(env.state())
        rest = played(env, 9, seed=1, step=run[-1])
    other = make_vec(Coded, 2)
    assert other.load_state(pickle.loads(stored)) is None
    assert other.take_faults() == []
    assert same(played(other, 9, seed=1, step=run[-1]), rest)


def test_reexecution_carries_actions_of_every_kind():
    kinds = spaces.Dict(a=spaces.MultiDiscrete([2, 3]), b=spaces.Box(-2, 2, (2,)), c=spaces.Discrete(3, start=1))

    class Sum(TeamEnv):
        agents, action_space, observation_space = 2, kinds, spaces.Box(-1e9, 1e9, (1,))

        def reset(self, *, seed=None, options=None):
            self.sum = np.zeros(2)
            return self.sum[:, None].astype(np.float32), {"action_mask": self.mask()}

        def mask(self):
            mask = np.ones((2, 10), bool)
            mask[1, [0, 3]] = False
            mask[:, 8:] = False  # means nothing: those components are no choices
            return mask

        def step(self, actions):
            assert all(kinds.contains(one) for one in actions)
            assert actions[1]["a"][0] == 1 and actions[1]["a"][1] != 1
            self.sum = self.sum * 2 + [one["a"].sum() + one["b"].sum() + one["c"] for one in actions]
            return self.sum[:, None].astype(np.float32), self.sum / 10, False, False, {"action_mask": self.mask()}

    env = make_vec(Sum, 2, workers=0)
    assert env.reset(0)["action_mask"][:, :, 8:].all() and env.noop is None
    run = played(env, 6)
    state = env.state()
    rest = played(env, 4, seed=2, step=run[-1])
    env.reset(5)
    env.load_state(state)
    assert env.take_faults() == [] and same(played(env, 4, seed=2, step=run[-1]), rest)
    assert check_env(Sum, steps=20) == ["no episode ended within 20 steps: ends and the next reset were not exercised"]


def test_pictures_of_each_agent_are_looked_at_by_themselves():
    class Seen(TeamEnv):
        agents, action_space = 2, spaces.Discrete(2)
        observation_space = spaces.Dict(
            eye=spaces.Box(0, 255, (3, 84, 84), np.uint8), map=spaces.Box(0, 255, (7, 7, 3), np.uint8)
        )

        def reset(self, *, seed=None, options=None):
            eye = np.zeros((2, 3, 84, 84), np.uint8)
            eye[1, 2] = 200
            small = np.zeros((2, 7, 7, 3), np.uint8)
            small[0, 3, 3] = 5
            return {"eye": eye, "map": small}, {}

        def step(self, actions):
            return self.reset()[0], [0, 1], False, True, {}

    env = make_vec(Seen, 3, workers=0)
    with pytest.warns(UserWarning, match="taken for"):
        step = env.reset(0)
    assert env.observation_space["eye"].shape == (80, 80, 3) and env.grids == ("map",)
    assert step["eye"].shape == (3, 2, 80, 80, 3) and step["map"].shape == (3, 2, 7, 7, 3)
    assert (step["eye"][:, 1, ..., 2] == 200).all() and step["eye"].sum() == 3 * 200 * 80 * 80
    assert (step["map"][:, 0, 3, 3] == 5).all() and step["map"].sum() == 3 * 15


def test_the_specification_passes():
    assert check_env(Coded, steps=40) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"agents": 0}, "Odd: agents is 0; it counts them and is at least 1"),
        ({"agents": True}, "Odd: agents is True"),
        ({"agents": None}, "Odd has noop, state_size, agent_signals and no agents"),
        ({"noop": 4}, "Odd: noop is 4; it is the index of an action of a Discrete space"),
        ({"noop": 0, "action_space": spaces.Box(-1, 1, (2,))}, "Odd: noop is 0"),
        ({"state_size": 0}, "Odd: state_size is 0"),
        ({"outcomes": ("lost",)}, "Odd: outcomes names 'lost', which is none of its signals"),
        ({"agent_signals": ("hat",)}, "Odd: agent_signals names 'hat'"),
        ({"signals": ("won", "hit", "alive")}, "the signal 'alive' has the name of an entry of every step"),
    ],
)
def test_what_cannot_be_said_of_agents_is_a_sentence(change, told):
    odd = type("Odd", (Coded,), change)
    with pytest.raises(TaskError, match=told):
        make(odd, noop=change.get("noop", 0))
    with pytest.raises(TaskError, match=told):
        make_vec(odd, 1, noop=change.get("noop", 0))


def wrong(change):
    class Wrong(Coded):
        def step(self, actions):
            record = super().step(actions)
            change(record[0], record[4])
            return (record[0], record[4].pop("reward", record[1]), *record[2:])

    return Wrong


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda shown, info: shown.update(vector=shown["vector"][0]),
            r"'vector' of shape \(3,\), .* says \(3,\) for each of 3",
        ),
        (lambda shown, info: shown.update(vector=shown["vector"] * np.nan), "'vector' with the value nan"),
        (lambda shown, info: info.update(reward=1.0), "gives 1.0 as rewards: return 3 values, one for each agent"),
        (lambda shown, info: info.update(reward=np.ones((3, 1))), "as rewards: return 3 values, one for each agent"),
        (lambda shown, info: info.update(reward=[1, 2, np.inf]), "the reward .*inf.* is no finite number"),
        (lambda shown, info: info.update(action_mask=np.ones((4, 3))), r"'action_mask' of shape \(4, 3\)"),
        (lambda shown, info: info.update(action_mask=np.full((3, 4), 2)), "'action_mask' with the value 2"),
        (lambda shown, info: info["action_mask"].__setitem__(1, False), "action_mask allows agent 1 no action"),
        (lambda shown, info: info.update(alive=[True]), r"'alive' of shape \(1,\)"),
        (lambda shown, info: info.pop("state"), "'state' as None"),
        (lambda shown, info: info.update(hit=True), "as info\\['hit'\\]: return 3 values"),
        (lambda shown, info: info.update(won=None), "won"),
    ],
)
def test_a_record_that_is_not_the_teams_is_a_sentence(change, told):
    env = make_vec(wrong(change), 1)
    step = env.reset(0)
    env.step(random_actions(env, step, np.random.default_rng(0)))
    with pytest.raises(TaskError, match=told):
        env.step(random_actions(env, step, np.random.default_rng(0)))
    with pytest.raises(CheckError, match=told):
        check_env(wrong(change))


def test_absent_agents_need_no_choice():
    """Whatever the environment says of one that is gone, it may do nothing."""
    env = make_vec(wrong(lambda shown, info: info["action_mask"].__setitem__(2, info["alive"][2])), 1)
    run = played(env, 4)
    assert run[-1]["action_mask"][0, 2].tolist() == [True, False, False, False]


class Rows(gymnasium.Env):
    """A stranger's: one agent sees a table, and the class has attributes of these names for itself."""

    agents, state_size = 3, 7
    observation_space = spaces.Dict(state=spaces.Box(0, 1, (3, 2)), alive=spaces.Discrete(2))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return {"state": np.ones((3, 2), np.float32), "alive": 1}, {}

    def step(self, action):
        return {"state": np.ones((3, 2), np.float32), "alive": 1}, 0.5, False, False, {}


def test_a_table_of_a_single_agent_stays_what_it_is():
    with pytest.warns(UserWarning, match="agents, state_size are taken for its own"):
        env = make_vec(Rows, 2, workers=0)
    step = env.reset(0)
    assert (env.agents, env.noop, env.state_size, env.outcomes) == (None, None, None, ())
    assert {name: value.shape for name, value in step.items()} == {
        "action": (2, 2), "reward": (2,), "first": (2,), "last": (2,), "terminal": (2,), "state": (2, 3, 2), "alive": (2,)
    }  # fmt: skip
    after = env.step(np.eye(2, dtype=np.float32))
    assert env.score(after) is after["reward"] and after["reward"].tolist() == [0.5, 0.5]
    assert "agents" not in env.protocol


def test_observations_keep_clear_of_what_a_team_adds():
    env = make_vec(Coded, 1)
    assert set(env.observation_space) == {"vector", "place", "~state", "image"}
    assert env.sources["~state"][0] == ("state",)
    assert env.reset(0)["~state"].shape == (1, 3, 1)


def test_a_repeated_action_is_for_one_agent():
    from env_adapters.wrappers import ActionRepeat

    with pytest.raises(TaskError, match="repeat is for a single agent"):
        ActionRepeat(Coded(), 2)


def test_one_agent_may_have_the_axis():
    class Alone(TeamEnv):
        agents, action_space, observation_space = 1, spaces.Discrete(2), spaces.Box(0, 1, (2,))

        def reset(self, *, seed=None, options=None):
            return np.zeros((1, 2), np.float32), {}

        def step(self, actions):
            return np.ones((1, 2), np.float32), [float(actions[0])], True, False, {}

    env = make_vec(Alone, 2, workers=0)
    assert env.reset(0)["vector"].shape == (2, 1, 2)
    assert env.step(np.eye(2, dtype=np.float32)[[[0], [1]]])["reward"].tolist() == [[0], [1]]

"""PettingZoo, in and out: what its environments show arrives as it is, leavers leave, and ours pass its own test."""

import importlib
import sys
import types
import warnings

import gymnasium
import numpy as np
import pytest
from env_adapters import TaskError, check_env, make, make_vec, parallel_env
from env_adapters.alike import Alike
from env_adapters.seeds import episode_seed
from env_adapters.team import choose
from env_adapters.zoo import Zoo
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.test import parallel_api_test

SPREAD, TAG = "mpe2.simple_spread_v3", "mpe2.simple_tag_v3"
KNIGHTS = "pettingzoo.butterfly.knights_archers_zombies_v11"
KINDS = [(SPREAD, {}, 30), (SPREAD, {"N": 2, "max_cycles": 7}, 20), (TAG, {}, 30), (KNIGHTS, {}, 250)]
KINDS += [(KNIGHTS, {"max_zombies": 60, "spawn_delay": 2}, 300)]


@pytest.mark.parametrize(("module", "options", "steps"), KINDS)
def test_records_are_what_the_environment_shows(module, options, steps):
    env = make_vec(f"zoo:{module}", 1, workers=0, **options)
    anew = importlib.import_module(module).parallel_env
    other = anew(**options)
    names, step, rng = list(other.possible_agents), env.reset(5), np.random.default_rng(0)
    assert env.agents == len(names) and env.protocol["names"] == names
    shown, episode, left = other.reset(seed=episode_seed(5, 0, 0))[0], 0, 0
    key = next(iter(env.observation_space))
    here = there = set(names)
    for _ in range(steps):
        for at, name in enumerate(names):
            seen = np.zeros(step[key].shape[2:], np.float32)
            if name in there:
                part = np.asarray(shown[name], np.float32)
                seen[tuple(map(slice, part.shape))] = part
                if module == TAG:
                    seen[16 + at] = 1
            assert np.array_equal(step[key][0, at], seen)
        assert step["alive"][0].tolist() == [name in there for name in names]
        assert step["action_mask"].all()
        assert np.array_equal(step["state"][0], np.ravel(other.state()).astype(np.float32))
        action = choose(env.action_spec, rng.uniform(size=step["action"].shape))
        step = env.step(action)
        if not here:
            episode, other = episode + 1, anew(**options)
            shown, here = other.reset(seed=episode_seed(5, 0, episode))[0], set(names)
            there = here
            assert step["first"].all() and not step["reward"].any()
            continue
        picks = dict(zip(names, action[0].argmax(-1).tolist(), strict=True))
        shown, reward, terminated, truncated, _ = other.step({name: picks[name] for name in other.agents})
        assert np.array_equal(step["reward"][0], [np.float32(reward[name]) if name in here else 0 for name in names])
        before, here = here, set(other.agents)
        left += bool(here) and here != before
        there = here or {name for name in before if truncated[name] and not terminated[name]}
        assert step["last"].tolist() == [not here]
        assert step["terminal"].tolist() == [not here and all(terminated[name] for name in before)]
    assert env.take_faults() == [] and (episode or module == KNIGHTS)
    assert left or "spawn_delay" not in options  # somebody has left before the others


class Stage(ParallelEnv):
    """Three agents by a script: time -> (here, terminated, truncated)."""

    def __init__(self, script, masks="none", noop=None, kinds=None, acts=None, picture=False):
        self.metadata = {"name": "stage"} | ({} if noop is None else {"noop": noop})
        self.possible_agents, self.script, self.masks, self.picture = ["a", "b", "c"], script, masks, picture
        self.kinds = kinds or dict.fromkeys("abc", spaces.Box(0, 99, (2,), np.float32))
        self.acts = acts or dict.fromkeys("abc", spaces.Discrete(3))

    def observation_space(self, agent):
        if self.masks == "dict":
            return spaces.Dict(observation=self.kinds[agent], action_mask=spaces.Box(0, 1, (3,), np.int8))
        return self.kinds[agent]

    def action_space(self, agent):
        return self.acts[agent]

    def state(self):
        if self.picture:
            return np.zeros((64, 64, 3), np.uint8)
        return super().state()  # PettingZoo's own, which says that there is none

    def reset(self, seed=None, options=None):
        self.time, self.agents = 0, list("abc")
        return self.shown(self.agents), self.info(self.agents)

    def mask(self, one):
        return np.array([1, self.time % 2, one != "b"], np.int8)

    def shown(self, names):
        seen = {one: np.array(["abc".index(one) + 1, self.time + 1], np.float32) for one in names}
        return (
            {one: {"observation": value, "action_mask": self.mask(one)} for one, value in seen.items()}
            if self.masks == "dict"
            else seen
        )

    def info(self, names):
        return {one: {"action_mask": self.mask(one)} if self.masks == "info" else {} for one in names}

    def step(self, actions):
        assert set(actions) == set(self.agents), (actions, self.agents)
        acting, self.time = self.agents, self.time + 1
        here, terminated, truncated = self.script[self.time]
        self.agents = list(here)
        flags = [{one: one in ended for one in acting} for ended in (terminated, truncated)]
        return (
            self.shown({*acting, *here}),
            dict.fromkeys("abc", float(self.time)),  # also to those who are gone
            *flags,
            self.info({*acting, *here}),
        )


def staged(script, steps, **options):
    env = make_vec(lambda: Zoo(lambda: Stage(script, **options), "zoo:stage"), 1, workers=0)
    step, run = env.reset(0), []
    rng = np.random.default_rng(0)
    for _ in range(steps):
        step = env.step(choose(env.action_spec, rng.uniform(size=step["action"].shape), step["action_mask"]))
        run.append(step)
    return env, run


# what happens at each time; who is alive in each record; whether the last one is terminal
SCRIPTS = [
    ({1: ("bc", "a", ""), 2: ("c", "b", ""), 3: ("", "c", "")}, ["bc", "c", ""], True),
    ({1: ("bc", "a", ""), 2: ("", "", "bc")}, ["bc", "bc"], False),  # the time is up for those that are left
    ({1: ("bc", "a", ""), 2: ("", "b", "c")}, ["bc", "c"], False),
    ({1: ("bc", "", "a"), 2: ("", "bc", "")}, ["bc", ""], False),  # the first was stopped, and did not end
    ({1: ("", "abc", "")}, [""], True),
    ({1: ("", "abc", "abc")}, [""], True),
    ({1: ("", "", "")}, ["abc"], False),  # gone without a word
    ({1: ("ab", "", ""), 2: ("abc", "", ""), 3: ("", "", "abc")}, ["ab", "abc", "abc"], False),  # and one that returns
    ({1: ("abc", "a", ""), 2: ("", "bc", "")}, ["bc", ""], True),  # listed still, though it has terminated
]


@pytest.mark.parametrize(("script", "alive", "terminal"), SCRIPTS)
def test_who_has_left_and_what_ends(script, alive, terminal):
    if "a" in script[1][0] and "a" in script[1][1]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Stage, "step", listed(Stage.step))
            _, run = staged(script, len(alive))
    else:
        _, run = staged(script, len(alive))
    acting = "abc"
    for at, (step, there) in enumerate(zip(run, alive, strict=True)):
        assert "".join(name for name, on in zip("abc", step["alive"][0], strict=True) if on) == there
        seen = [[i + 1, at + 2] if name in there else [0, 0] for i, name in enumerate("abc")]
        assert step["vector"][0].tolist() == seen
        assert step["reward"][0].tolist() == [at + 1.0 if name in acting else 0.0 for name in "abc"]
        assert step["last"].tolist() == [at == len(alive) - 1]
        acting = there
    assert run[-1]["terminal"].tolist() == [terminal]


def test_an_end_says_nothing_of_the_next_one():
    ends = iter([("", "", "abc"), ("", "", "abc"), ("", "abc", ""), ("", "", "abc")])  # the first is not played
    env = Zoo(lambda: Stage({1: next(ends)}), "zoo:stage")
    found = []
    for _ in range(3):
        env.reset(seed=0)
        found.append(env.step([0, 0, 0])[2:4])
    assert found == [(False, True), (True, False), (False, True)]


def listed(step):
    def kept(self, actions):
        self.agents = [one for one in self.agents if one in actions]
        return step(self, actions)

    return kept


@pytest.mark.parametrize("masks", ["dict", "info"])
@pytest.mark.parametrize("noop", [None, 1])
def test_masks_of_observations_and_of_info(masks, noop):
    env, run = staged(SCRIPTS[0][0], 2, masks=masks, noop=noop)
    assert env.observation_space == spaces.Dict(vector=spaces.Box(0, 99, (2,), np.float32)) and env.noop == noop
    gone = [True] * 3 if noop is None else [False, True, False]
    assert run[0]["action_mask"][0].tolist() == [gone, [True, True, False], [True, True, True]]
    assert run[1]["action_mask"][0].tolist() == [gone, gone, [True, False, True]]


def test_a_state_that_is_a_picture_or_none_is_left_out():
    assert staged(SCRIPTS[0][0], 1)[0].state_size is None
    assert staged(SCRIPTS[0][0], 1, picture=True)[0].state_size is None


BOX = spaces.Box(0, 99, (2,), np.float32)
WIDE = spaces.Box(-1, 5, (3,), np.float32)


def test_unlike_widths_are_filled_up_and_named():
    alike = Alike("zoo:x", {"a": BOX, "b": WIDE})
    assert alike.space == spaces.Box(np.float32([-1, -1, -1, 0, 0]), np.float32([99, 99, 5, 1, 1]), dtype=np.float32)
    assert alike.stacked({"a": [7, 8], "b": [1, 2, 3]}).tolist() == [[7, 8, 0, 1, 0], [1, 2, 3, 0, 1]]
    both = Alike(
        "zoo:x",
        {
            "a": spaces.Dict(p=BOX, q=spaces.Discrete(2, start=3)),
            "b": spaces.Dict(p=WIDE, q=spaces.Discrete(2, start=3)),
        },
    )
    shown = both.stacked({"b": {"p": np.float32([1, 2, 3]), "q": 4}})
    assert shown["p"].tolist() == [[0, 0, 0], [1, 2, 3]] and shown["id"].tolist() == [[1, 0], [0, 1]]
    assert shown["q"].tolist() == [3, 4] and all(
        both.space.contains({k: v[i] for k, v in shown.items()}) for i in (0, 1)
    )


def test_what_is_alike_stays_what_it_is():
    assert Alike("zoo:x", {"a": BOX, "b": BOX}).space == BOX
    wider = Alike("zoo:x", {"a": BOX, "b": spaces.Box(-5, 9, (2,), np.float32)})
    assert wider.space == spaces.Box(-5, 99, (2,), np.float32)
    assert wider.stacked({"b": [1, 2]}).tolist() == [[0, 0], [1, 2]]


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (
            {"a": BOX, "b": spaces.Box(0, 1, (2, 2))},
            r"a sees Box\(0.0, 99.0, \(2,\), float32\) and b sees|a sees .* and b Box",
        ),
        ({"a": BOX, "b": spaces.Discrete(2)}, "a sees .* and b Discrete"),
        ({"a": spaces.Discrete(3), "b": spaces.Discrete(2)}, "only vectors may differ"),
        (
            {"a": spaces.Box(0, 255, (16, 16, 3), np.uint8), "b": spaces.Box(0, 255, (32, 32, 3), np.uint8)},
            "only vectors",
        ),
        ({"a": spaces.Dict(p=BOX), "b": spaces.Dict(q=BOX)}, "only vectors"),
        ({"a": spaces.Tuple([BOX]), "b": spaces.Tuple([WIDE])}, "only vectors"),
        ({"a": BOX, "b": spaces.Box(0, 9, (2,), np.int64)}, "only vectors"),
    ],
)
def test_what_cannot_be_alike_is_a_sentence(kinds, told):
    with pytest.raises(TaskError, match=told):
        Alike("zoo:x", kinds)


def test_an_agent_that_shows_something_else_is_a_sentence():
    with pytest.raises(TaskError, match=r"a sees something of shape \(3,\), its space is Box"):
        Alike("zoo:x", {"a": BOX, "b": WIDE}).stacked({"a": [1, 2, 3]})
    with pytest.raises(TaskError, match="what a sees is not of its space Dict"):
        Alike("zoo:x", {"a": spaces.Dict(p=BOX)}).stacked({"a": {"q": 1}})


def module(monkeypatch, name, **held):
    found = types.ModuleType(name)
    vars(found).update(held)
    monkeypatch.setitem(sys.modules, name, found)


@pytest.mark.parametrize(
    ("task", "options", "told"),
    [
        (
            "zoo:mpe2.simple_speaker_listener_v4",
            {},
            r"speaker_0 acts in Discrete\(3\) and listener_0 in Discrete\(5\): all agents",
        ),
        ("zoo:mpe2.simple_nothing_v1", {}, "zoo:mpe2.simple_nothing_v1: mpe2 has no such module"),
        ("zoo:nothing_of_the_kind.x", {}, "there is no module 'nothing_of_the_kind' to import, or it needs that one$"),
        ("zoo:simple_spread", {}, "'simple_spread'.*; close: zoo:mpe2.simple_spread_v3$"),
        ("zoo:mpe2.simple_spread_v2", {}, "no such module; close: zoo:mpe2.simple_spread_v3, "),
        ("zoo:pettingzoo.sisl.persuit_v5", {}, "no such module; close: zoo:pettingzoo.sisl.pursuit_v5$"),
        ("zoo:mpe2.simple_spread_v3", {"size": 3}, "does not take the options size"),
        ("zoo:turns", {}, "has no parallel_env, agents that act at once"),
        ("zoo:nobody", {}, "does not say who its agents may be"),
    ],
)
def test_what_does_not_fit_is_a_sentence(task, options, told, monkeypatch):
    module(monkeypatch, "turns", env=lambda: None)
    module(monkeypatch, "nobody", parallel_env=object)
    with pytest.raises(TaskError, match=told):
        make(task, **options)


def test_what_a_module_needs_is_no_reason_to_name_another(tmp_path, monkeypatch):
    (tmp_path / "simple_spread_of_mine.py").write_text("import nothing_of_the_kind\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TaskError, match=r"no module 'nothing_of_the_kind' to import, or it needs that one$"):
        make("zoo:simple_spread_of_mine")


class Absent:
    """Who looks for pettingzoo finds none."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pettingzoo":
            raise ModuleNotFoundError(f"No module named {name!r}", name="pettingzoo")


def test_without_the_package_the_extra_is_named(monkeypatch):
    for name in [one for one in sys.modules if one.partition(".")[0] == "pettingzoo"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(TaskError, match=r"env-adapters\[zoo\]"):
        make("zoo:pettingzoo.butterfly.pistonball_v6")
    monkeypatch.delitem(sys.modules, "env_adapters.zoo_parallel", raising=False)
    with pytest.raises(TaskError, match=r"env-adapters\[zoo\]"):
        parallel_env("toy:whisper")


@pytest.mark.parametrize("module", [SPREAD, TAG, KNIGHTS])
def test_the_specification_passes(module):
    ends = ["no episode ended within 60 steps: ends and the next reset were not exercised"]
    assert check_env(f"zoo:{module}", steps=60) == (ends if module == KNIGHTS else [])


# ---------------------------------------------------------------- out

OURS = [("toy:whisper", {}), ("toy:whisper", {"agents": 2}), ("toy:leavers", {}), ("toy:leavers", {"times": "1,3,2"})]


@pytest.mark.parametrize(("task", "options"), OURS)
def test_ours_pass_pettingzoos_own_test(task, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(parallel_env(task, **options), num_cycles=50)


def test_an_environment_of_theirs_goes_in_and_out():
    parallel_api_test(parallel_env(f"zoo:{SPREAD}"), num_cycles=60)
    env = parallel_env(f"zoo:{KNIGHTS}", max_zombies=60, spawn_delay=2)
    parallel_api_test(env, num_cycles=150)


def test_leavers_leave_with_their_last_reward():
    env = parallel_env("toy:leavers", times="1,3")
    assert env.metadata["noop"] == 0 and env.possible_agents == ["agent_0", "agent_1", "agent_2"]
    seen, info = env.reset(seed=4)
    assert set(seen) == set(info) == set(env.agents)
    mask = seen["agent_1"]["action_mask"]
    assert mask.dtype == np.int8 and mask.sum() == 2 and np.array_equal(mask, info["agent_1"]["action_mask"])
    assert env.state().tolist() == [1, 1, 1, 0]
    ends = []
    for time in range(1, 7):
        acting = list(env.agents)
        action = {one: 1 + (int(seen[one]["observation"][:3].argmax()) + 1) % 3 for one in acting}  # the right one
        seen, reward, terminated, truncated, info = env.step(action)
        assert list(seen) == list(reward) == list(terminated) == list(truncated) == list(info) == acting
        assert set(reward.values()) == {1.0}
        assert [info[one]["left"] for one in acting] == [terminated[one] for one in acting]
        ends += [(time, one, terminated[one], truncated[one]) for one in acting if terminated[one] or truncated[one]]
        assert all(env.observation_space(one).contains(seen[one]) for one in acting)
    assert ends == [(1, "agent_0", True, False), (3, "agent_1", True, False), (6, "agent_2", False, True)]
    assert env.agents == [] and info["agent_2"]["won"] is True
    with pytest.raises(RuntimeError, match="call reset"):
        env.step({})


def test_an_end_of_the_game_is_everyones_termination():
    env = parallel_env("toy:whisper")
    env.reset(seed=0)
    for over in (False, True):
        _, _, terminated, truncated, _ = env.step(dict.fromkeys(env.agents, 1))
        assert terminated == dict.fromkeys(env.possible_agents, over) and not any(truncated.values())
    assert env.agents == []


def test_those_who_have_left_do_the_no_op():
    env = parallel_env(lambda: Zoo(lambda: Stage(SCRIPTS[0][0], noop=1), "zoo:stage"))
    env.reset(seed=0)
    for here in (["agent_1", "agent_2"], ["agent_2"], []):
        env.step(dict.fromkeys(env.agents, 2))
        assert env.agents == here


def test_what_is_forbidden_or_missing_is_refused():
    env = parallel_env("toy:leavers")
    seen, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match="environment 0, agent 2: action 0 is masked out"):
        env.step({"agent_0": allowed(seen, 0), "agent_1": allowed(seen, 1), "agent_2": 0})
    with pytest.raises(KeyError):
        env.step({"agent_0": 1})


def allowed(seen, at):
    return int(seen[f"agent_{at}"]["action_mask"].argmax())


def test_a_seed_gives_the_same_episodes_again():
    def run(env):
        seen = [env.reset(seed=3)[0]]
        for _ in range(3):
            seen += [env.step(dict.fromkeys(env.agents, 1))[0] for _ in range(2)]
            seen.append(env.reset()[0])
        return [{one: value["observation"].tolist() for one, value in step.items()} for step in seen]

    one, two = run(parallel_env("toy:whisper")), run(parallel_env("toy:whisper"))
    assert one == two and one[0] != one[3]


def test_a_task_of_one_agent_or_without_state_says_so():
    with pytest.raises(TaskError, match="toy:catch has a single agent"):
        parallel_env("toy:catch")
    env = parallel_env("toy:whisper")
    env.reset(seed=0)
    with pytest.raises(NotImplementedError):
        env.state()


def test_leavers_out_and_in_again_is_what_it_was():
    """Every record of both, with the same shift; only the signals stay behind."""

    def begun(env):
        for seed in range(60):
            step = env.reset(seed)
            if step["vector"][0, 0, :3].argmax() == 1:
                return step
        raise AssertionError

    for times in ("2,4", "1,3,2", ""):
        near = make_vec("toy:leavers", 1, times=times)
        far = make_vec(
            lambda times=times: Zoo(lambda: parallel_env("toy:leavers", times=times), "zoo:leavers"), 1, workers=0
        )
        assert (far.agents, far.noop, far.state_size) == (near.agents, near.noop, near.state_size)
        one, two, rng = begun(near), begun(far), np.random.default_rng(0)
        for _ in range(7):
            assert set(one) - set(two) == {"won", "left"}
            assert all(np.array_equal(one[name], two[name]) for name in two), times
            if one["last"].all():
                break
            action = choose(near.action_spec, rng.uniform(size=(1, 3, 4)), one["action_mask"])
            one, two = near.step(action), far.step(action)
        assert one["last"].all()


def test_nobody_acts_after_the_end():
    env = Zoo(lambda: Stage(SCRIPTS[4][0]), "zoo:stage")
    env.reset(seed=0)
    env.step([0, 0, 0])
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0, 0, 0])

"""bsuite's experiments against the package and against their definition."""

import numpy as np
import pytest
from bsuite import sweep
from bsuite.environments.memory_chain import MemoryChain
from env_adapters import TaskError, check_env, make, make_vec
from env_adapters.bsuite import EXPERIMENTS
from gymnasium.utils import seeding


@pytest.mark.parametrize("task", ["memory_len/5", "memory_size/3", "discounting_chain/7"])
def test_specification(task) -> None:
    assert check_env(f"bsuite_{task}", steps=220) == []


def test_ids_are_bsuites() -> None:
    for name, count in EXPERIMENTS.items():
        ids = [one for one in sweep.SWEEP if one.startswith(f"{name}/")]
        assert len(ids) == count
        for one in ids:
            protocol, settings = make(f"bsuite_{one}").unwrapped.protocol, sweep.SETTINGS[one]
            assert settings.items() <= protocol.items() and protocol["task"] == one
            assert protocol["episodes"] == sweep.EPISODES[one]
    lengths = [make(f"bsuite_memory_len/{id}").unwrapped.protocol["memory_length"] for id in (11, 15, 18, 22)]
    assert lengths == [14, 30, 60, 100]


@pytest.mark.parametrize(("task", "actions"), [("memory_size/0", 3), ("memory_size/16", 3), ("memory_len/11", 15)])
def test_an_episode_has_the_length_that_the_docstring_says(task: str, actions: int) -> None:
    """memory_length actions after the one in whose step the bits are shown."""
    env = make(f"bsuite_{task}")
    env.reset(seed=0)
    assert [env.step(0)[2] for _ in range(actions)] == [False] * (actions - 1) + [True]


def test_records_equal_the_packages() -> None:
    env, theirs = make("bsuite_memory_len/4"), MemoryChain(5, 1, seed=int(seeding.np_random(9)[0].integers(2**32)))
    # theirs draws one context at construction, before the first reset; ours is seeded at the reset
    vars(theirs)["_rng"].seed(int(seeding.np_random(9)[0].integers(2**32)))
    for episode in range(3):
        if episode:
            vars(theirs)["_rng"].seed(int(seeding.np_random(episode)[0].integers(2**32)))
        one, two = env.reset(seed=episode or 9)[0], theirs.reset()
        assert np.array_equal(one["vector"], two.observation[0])
        for step in range(6):
            found, expected = env.step(step % 2), theirs.step(step % 2)
            assert np.array_equal(found[0]["vector"], expected.observation[0])
            assert found[1] == expected.reward and found[2] == expected.last() and not found[3]


def test_memory_by_hand() -> None:
    env, bits = make("bsuite_memory_len/2"), []
    for seed in range(40):
        vector = env.reset(seed=seed)[0]["vector"]
        assert vector[:2].tolist() == [1.0, 0.0] and vector[2] in (-1.0, 1.0)
        bits.append(vector[2])
        ends = [env.step(int(vector[2] > 0))[1:4] for _ in range(4)]
        assert ends == [(0.0, False, False)] * 3 + [(1.0, True, False)]
    assert abs(np.mean(bits)) < 0.4


@pytest.mark.parametrize(("id", "best"), [(0, 1), (4, 100), (8, 30)])
def test_chain_by_hand(id, best) -> None:
    env, delays = make(f"bsuite_discounting_chain/{id}"), [1, 3, 10, 30, 100]
    for action, delay in enumerate(delays):
        assert env.reset(seed=0)[0]["vector"].tolist() == [-1.0, 0.0]
        records = [env.step(action) for _ in range(100)]
        expected = [(1.1 if delay == best else 1.0) if at == delay else 0.0 for at in range(1, 101)]
        assert [record[1] for record in records] == pytest.approx(expected)
        assert records[-1][2] and not any(record[2] or record[3] for record in records[:-1])
        assert records[5][0]["vector"] == pytest.approx([action, 0.06])


def test_episodes_of_a_batch_differ_and_repeat() -> None:
    def bits() -> list[list[float]]:
        env = make_vec("bsuite_memory_size/9", 4)
        return env.reset(seed=1)["vector"][:, 2:].tolist()

    assert bits() == bits() and len({tuple(one) for one in bits()}) == 4


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("bsuite_catch/0", "no experiment 'catch' here; it has memory_len, memory_size, discounting_chain"),
        ("bsuite_memory_len", "no task without an id; it has bsuite_memory_len/0 to 22"),
        ("bsuite_memory_len/23", "no id '23'"),
        ("bsuite_memory_len/x", "no id 'x'"),
    ],
)
def test_mistakes_are_one_sentence(task, message) -> None:
    with pytest.raises(TaskError, match=message):
        make(task)


def test_missing_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bsuite.experiments.memory_len.sweep", None)
    monkeypatch.setitem(__import__("sys").modules, "bsuite.experiments.memory_len", None)
    with pytest.raises(TaskError, match=r"env-adapters\[bsuite\]"):
        make("bsuite_memory_len/0")

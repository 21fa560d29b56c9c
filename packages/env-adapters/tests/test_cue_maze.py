"""The corridor whose question is answered by an earlier episode, and what environments tell beyond what they show."""

import numpy as np
import pytest
from env_adapters import TaskError, make_vec
from env_adapters.cue_maze import CueMaze
from gymnasium.error import ResetNeeded

L, D, G = 4, 4, 3


def episode(env: CueMaze, seed: int, action=lambda vector: 0) -> tuple[list[np.ndarray], float]:
    seen, reward, over = [env.reset(seed=seed)[0]["vector"]], 0.0, False
    while not over:
        vector, reward, over, cut, _ = env.step(action(seen[-1]))
        assert not cut and (over or reward == 0)
        seen.append(vector["vector"])
    with pytest.raises(ResetNeeded):
        env.step(0)
    return seen, reward


def cue(vector: np.ndarray) -> np.ndarray:
    return vector[L + 1 : L + 1 + D]


def lamp(vector: np.ndarray) -> np.ndarray:
    return vector[L + 1 + D : L + 1 + 2 * D]


def test_the_fact_is_shown_in_one_record_of_a_cycle_and_the_question_comes_gap_episodes_later() -> None:
    env = CueMaze(seed=3)
    for cycle in range(20):
        films = [episode(env, 100 * cycle + k)[0] for k in range(G + 1)]
        assert all(len(film) == L + 1 for film in films)
        assert [[int(one[: L + 1].argmax()) for one in film] for film in films] == [list(range(L + 1))] * (G + 1)
        shown = np.array([[cue(one).sum() for one in film] for film in films])
        assert shown[0, 0] == 1 and shown.sum() == 1
        lit = np.array([[lamp(one).sum() for one in film] for film in films])
        assert (lit[:G, L - 1] == 1).all() and lit.sum() == G
        assert [[one[-1] for one in film] for film in films] == [[0.0] * (L + 1)] * G + [[1.0] * (L + 1)]
        assert cue(films[0][0]).argmax() == env.fact == env.right == env.told["fact"].argmax()


@pytest.mark.parametrize(("remembers", "score"), [(True, 1.0), (False, (G + 1 / D) / (G + 1)), (None, 1 / D)])
def test_scores_of_who_remembers_who_follows_lamps_and_who_guesses(remembers: bool | None, score: float) -> None:
    env, rng, scores, fact = CueMaze(seed=1), np.random.default_rng(0), [], 0

    def play(vector: np.ndarray) -> int:
        nonlocal fact
        if remembers and cue(vector).any():
            fact = int(cue(vector).argmax())
        if lamp(vector).any() and remembers is not None:
            return int(lamp(vector).argmax())
        return fact if remembers else int(rng.integers(D))

    for seed in range(1600):
        scores.append(episode(env, seed, play)[1])
    assert np.mean(scores) == pytest.approx(score, abs=0.03 if remembers is not True else 0)


def test_facts_are_uniform_differ_between_cycles_and_instances_and_outlive_seeded_resets() -> None:
    facts = np.array([[fact for fact in facts_of(CueMaze(length=1, gap=1, seed=seed))] for seed in range(60)])
    assert np.bincount(facts.ravel(), minlength=D) / facts.size == pytest.approx(np.full(D, 1 / D), abs=0.05)
    assert (facts[:, 1:] == facts[:, :-1]).mean() == pytest.approx(1 / D, abs=0.05)
    assert (facts[1:] == facts[:-1]).mean() == pytest.approx(1 / D, abs=0.05)
    env = CueMaze(length=1, gap=2, seed=7)
    for seed in (0, 0, 5):  # a seeded reset goes on within the cycle
        env.reset(seed=seed)
        found = env.fact
        env.step(0)
    assert env.asked and found == CueMaze(seed=7).fact


def facts_of(env: CueMaze, cycles: int = 20) -> list[int]:
    found = []
    for k in range(2 * cycles):
        env.reset(seed=k)
        found.append(env.fact)
        env.step(0)
    return found[::2]


def test_nothing_but_the_cue_and_the_reward_depends_on_the_fact() -> None:
    one, two = CueMaze(seed=1), CueMaze(seed=2)
    for seed in range(40):
        first, second = episode(one, seed)[0], episode(two, seed)[0]
        for a, b in zip(first, second, strict=True):
            a, b = a.copy(), b.copy()
            a[L + 1 : L + 1 + D] = b[L + 1 : L + 1 + D] = 0
            assert np.array_equal(a, b)


def test_pictures_and_vectors_show_the_same_world() -> None:
    one, two = CueMaze(seed=4), CueMaze(image=True, seed=4)
    pairs: dict[bytes, set[bytes]] = {}
    for seed in range(60):
        seen = [(one.reset(seed=seed)[0], two.reset(seed=seed)[0])]
        for _ in range(L):
            left, right = one.step(1), two.step(1)
            assert left[1:4] == right[1:4]
            seen.append((left[0], right[0]))
        for vector, image in seen:
            pairs.setdefault(vector["vector"].tobytes(), set()).add(image["image"].tobytes())
    assert all(len(images) == 1 for images in pairs.values())
    assert len(set.union(*pairs.values())) == len(pairs)


def test_what_is_told_belongs_to_the_record_it_comes_with() -> None:
    for workers in (0, 1):
        with make_vec("toy:cue_maze", 2, workers=workers, length=2, gap=1) as envs:
            step, facts = envs.reset(seed=0), {}
            for t in range(40):
                told = envs.told()["told/fact"]
                assert told.shape == (2, 4) and told.dtype == np.float32 and (told.sum(1) == 1).all()
                for row in range(2):
                    shown = step["vector"][row, 3:7]
                    facts[row] = shown.argmax() if shown.any() else facts[row]
                    assert told[row].argmax() == facts[row], t
                step = envs.step(np.eye(4, dtype=np.float32)[[0, 1]])


@pytest.mark.parametrize(("task", "name", "size"), [("toy:doors", "told/right", 4), ("toy:catch", "told/state", 3)])
def test_toys_tell_what_decides(task: str, name: str, size: int) -> None:
    with make_vec(task, 3) as envs:
        envs.reset(seed=0)
        for _ in range(20):
            told = envs.told()
            assert list(told) == [name] and told[name].shape == (3, size)
            action = (
                told[name]
                if task == "toy:doors"
                else np.eye(3)[1 + np.sign(told[name][:, 1] - told[name][:, 2]).astype(int)]
            )
            step = envs.step(action.astype(np.float32))
            assert (step["reward"][step["last"]] == 1).all()


def test_an_environment_of_someone_elses_tells_nothing() -> None:
    with make_vec("gym:CartPole-v1", 2) as envs:
        envs.reset(seed=0)
        assert envs.told() == {}


def test_impossible_mazes_are_refused() -> None:
    for options, said in (
        ({"length": 0}, "length >= 1"),
        ({"arms": 1}, "arms >= 2"),
        ({"gap": 0}, "gap >= 1"),
        ({"image": True, "size": 40}, "multiple of 64"),
    ):
        with pytest.raises(TaskError, match=said):
            CueMaze(**options)

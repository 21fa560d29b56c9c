"""Catch, plain and distracted, and doors."""

from itertools import pairwise

import numpy as np
import pytest
from env_adapters import TaskError, make, make_vec
from env_adapters.toys import Catch, DistractedCatch, Doors
from gymnasium.error import ResetNeeded


def follow(env: Catch, seed: int) -> float:
    """Read ball and paddle from the pixels and walk under the ball."""
    step = env.reset(seed=seed)[0]["image"]
    while True:
        ball = np.flatnonzero((step == (250, 215, 50)).all(-1).any(0)).mean()
        paddle = np.flatnonzero((step == (70, 110, 240)).all(-1).any(0)).mean()
        action = 1 + int(np.sign(round(ball - paddle)))
        observation, reward, terminal, truncated, _ = env.step(action)
        step = observation["image"]
        assert not truncated
        if terminal:
            return reward
        assert reward == 0


@pytest.mark.parametrize(("size", "grid"), [(64, 8), (16, 4), (24, 3)])
def test_catch_is_solved_by_what_the_image_shows(size: int, grid: int) -> None:
    env = Catch(size, grid)
    assert [follow(env, seed) for seed in range(20)] == [1.0] * 20


def test_catch_is_missed_by_standing_still_except_in_the_middle() -> None:
    env, rewards = Catch(size=16), []
    for seed in range(300):
        env.reset(seed=seed)
        results = [env.step(1) for _ in range(7)]
        assert [terminal for _, _, terminal, _, _ in results] == [False] * 6 + [True]
        rewards.append(results[-1][1])
    assert set(rewards) == {-1.0, 1.0}
    assert np.mean(rewards) == pytest.approx(2 / 8 - 1, abs=0.1)  # an eighth of the columns


def test_caught_and_missed_look_different() -> None:
    env, last = Catch(size=64), {}
    for seed in range(40):
        env.reset(seed=seed)
        for _ in range(7):
            observation, reward, *_ = env.step(1)
        last.setdefault(reward, set()).add(observation["image"].tobytes())
    assert not last[1.0] & last[-1.0]


def test_distracted_catch_is_solved_by_what_the_image_shows() -> None:
    env = DistractedCatch()  # as above: ball and paddle lie over the blocks, in colours that no block has
    assert [follow(env, seed) for seed in range(100)] == [1.0] * 100


def test_distraction_changes_no_reward_and_no_move_of_ball_and_paddle() -> None:
    plain, distracted, rng = Catch(), DistractedCatch(), np.random.default_rng(0)

    def shown(image: np.ndarray, colour: tuple[int, int, int]) -> bytes:
        return (image == colour).all(-1).tobytes()

    ends = set()
    for seed in range(200):
        pairs = [(env.reset(seed=seed)[0]["image"], 0.0, False) for env in (plain, distracted)]
        while True:
            (one, *rest), (two, *other) = pairs
            assert rest == other
            for colour in ((250, 215, 50), (70, 110, 240)):
                assert shown(one, colour) == shown(two, colour)
            if rest[1]:
                ends.add(rest[0])
                break
            action = int(rng.integers(3))
            pairs = [(r[0]["image"], r[1], r[2]) for r in (env.step(action) for env in (plain, distracted))]
    assert ends == {-1.0, 1.0}


def test_blocks_move_every_step_whatever_the_actions_and_differ_between_episodes() -> None:
    seen = set()
    for seed in range(50):
        films = []
        for action in (0, 2):
            env = DistractedCatch()
            film = [env.reset(seed=seed)[0]["image"]] + [env.step(action)[0]["image"] for _ in range(7)]
            films.append(film)
            for one, two in pairwise(film):
                free = ~((one == (250, 215, 50)) | (two == (250, 215, 50))).all(-1)[:-8]
                assert (one != two).any(-1)[:-8][free].mean() > 0.005  # of which nothing is the ball's way
        for one, two in zip(*films, strict=True):
            assert np.array_equal(one[:-8], two[:-8])  # all but the paddle's row
        assert 0.05 < (films[0][0].max(-1) > 100).mean() < 0.11  # four blocks, ball and paddle, of 64 cells
        seen.add(films[0][0].tobytes())
    assert len(seen) == 50


def test_blocks_leave_on_one_side_and_return_on_the_other() -> None:
    env = DistractedCatch(size=256, grid=32, blocks=1)  # a block of 8 x 8 that moves up to 16 pixels a step
    sides = set()
    for seed in range(20):
        film = [env.reset(seed=seed)[0]["image"]] + [env.step(1)[0]["image"] for _ in range(31)]
        known = [
            (image == colour).all(-1) for image in film for colour in ((24, 24, 32), (250, 215, 50), (70, 110, 240))
        ]
        areas = [256**2 - sum(int(part.sum()) for part in known[i : i + 3]) for i in range(0, len(known), 3)]
        assert areas.count(64) >= 24 and max(areas) == 64  # else ball or paddle covers it
        lit = [~(known[i] | known[i + 1] | known[i + 2]) for i in range(0, len(known), 3)]
        sides |= {"rows" for one in lit if one[0].any() and one[-1].any()}
        sides |= {"columns" for one in lit if one[:, 0].any() and one[:, -1].any()}
    assert sides == {"rows", "columns"}


def test_doors_is_two_records_and_one_action() -> None:
    env = Doors(seed=1)
    for seed in range(20):
        before = env.reset(seed=seed)[0]["vector"]
        assert before.sum() == 1 and before[:32].argmax() == env.cue
        guess = seed % 4
        after, reward, terminal, truncated, _ = env.step(guess)
        right = after["vector"][32:]
        assert right.sum() == 1 and (after["vector"][:32] == before[:32]).all()
        assert right.argmax() == env.rule[env.cue]
        assert reward == float(right.argmax() == guess) and terminal and not truncated
        with pytest.raises(ResetNeeded):
            env.step(0)


def test_rule_outlives_seeded_resets() -> None:
    env = Doors(seed=3, redraw=0)
    rule = env.rule
    for seed in [0, 1, 0, 5, 5, 5] * 200:
        env.reset(seed=seed)
    assert np.array_equal(env.rule, rule)


def test_first_record_says_nothing_about_the_rule() -> None:
    one, two = Doors(seed=1), Doors(seed=2)
    assert not np.array_equal(one.rule, two.rule)
    for seed in range(50):
        assert np.array_equal(one.reset(seed=seed)[0]["vector"], two.reset(seed=seed)[0]["vector"])
        assert one.rule.shape == (32,) and not one.rule.flags.writeable


def test_rule_is_redrawn_every_400_episodes_on_average() -> None:
    changed = []
    for seed in range(3):
        env = Doors(seed=seed)
        rule = env.rule
        for episode in range(12_000):
            env.reset()
            if env.rule is not rule:
                assert not np.array_equal(env.rule, rule)
                rule = env.rule
                changed.append(episode + 12_000 * seed)
    gaps = np.diff(changed)
    assert len(changed) == pytest.approx(90, abs=30)  # binomial, 36,000 at 1 / 400: three standard deviations
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.4)  # geometric: not at fixed times


def test_redraw_happens_between_episodes_only() -> None:
    env = Doors(seed=0, redraw=1)
    rules = []
    for seed in range(30):
        env.reset(seed=seed)
        rules.append(env.rule)
        env.step(0)
        assert env.rule is rules[-1]
    assert all(not np.array_equal(one, two) for one, two in pairwise(rules))


def test_rules_are_uniform_and_not_shared() -> None:
    env = make_vec("toy:doors", 200)
    env.reset(seed=0)
    rules = np.array(env.get("rule"))  # (200, 32)
    assert len({rule.tobytes() for rule in rules}) == 200
    counts = np.bincount(rules.ravel(), minlength=4) / rules.size
    np.testing.assert_allclose(counts, 0.25, atol=0.03)
    agreement = (rules[:, None] == rules[None]).mean(-1)[np.triu_indices(200, 1)].mean()
    assert agreement == pytest.approx(0.25, abs=0.01)
    per_cue = np.stack([np.bincount(rules[:, cue], minlength=4) for cue in range(32)]) / 200
    np.testing.assert_allclose(per_cue, 0.25, atol=0.15)
    env.reset(seed=1)
    assert not np.array_equal(np.array(env.get("rule")), rules)
    env.reset(seed=0)
    assert np.array_equal(np.array(env.get("rule")), rules)


def test_knowing_the_rule_opens_every_door_and_not_knowing_opens_a_quarter() -> None:
    env, rng = make_vec("toy:doors", 16, redraw=7), np.random.default_rng(0)
    step = env.reset(seed=2)
    oracle, chance = [], []
    for _ in range(400):
        rules, cues = np.array(env.get("rule")), step["vector"][:, :32].argmax(1)
        right = rules[np.arange(16), cues]
        door = np.where(np.arange(16) < 8, right, rng.integers(4, size=16))
        asked = step["first"]
        step = env.step(np.eye(4, dtype=np.float32)[door])
        oracle += step["reward"][:8][asked[:8]].tolist()
        chance += step["reward"][8:][asked[8:]].tolist()
    assert np.mean(oracle) == 1.0 and len(oracle) == 1600
    assert np.mean(chance) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    "make_it", [Catch, DistractedCatch, lambda: Doors(redraw=2), lambda: Doors(image=True, redraw=2)]
)
def test_snapshot_holds_the_generators_too(make_it) -> None:
    def unseeded(env) -> list:
        found = []
        for _ in range(12):
            found.append(next(iter(env.reset()[0].values())).tobytes())
            found += [next(iter(one[0].values())).tobytes() for one in [env.step(1)]]
        return found

    env, other = make_it(), make_it()
    env.reset(seed=3)
    env.reset()
    state = env.snapshot()
    expected = unseeded(env)
    env.restore(state)
    assert unseeded(env) == expected
    other.restore(state)
    assert unseeded(other) == expected


def test_first_seeded_reset_makes_the_instance_where_no_seed_was_given() -> None:
    one, two, three = Doors(), Doors(), Doors()
    one.reset(seed=4), two.reset(seed=4), three.reset(seed=5)
    assert np.array_equal(one.rule, two.rule) and not np.array_equal(one.rule, three.rule)
    rule = one.rule
    one.reset(seed=5)
    assert one.rule is rule


def test_doors_images_show_cue_and_door_clearly() -> None:
    env, images = make("toy:doors_image", seed=0), {}
    for seed in range(400):
        image = env.reset(seed=seed)[0]["image"]
        cue = env.unwrapped.cue
        assert np.array_equal(images.setdefault(cue, image), image)
        after = env.step(0)[0]["image"]
        door = env.unwrapped.rule[cue]
        assert np.array_equal(after[:48], image[:48])  # the cue stays
        lit = [(after[48:, 16 * one : 16 * one + 16] == 255).mean() > 0.5 for one in range(4)]
        assert lit == [one == door for one in range(4)]
    assert len(images) == 32
    stack = np.stack([image[:48].astype(float) for image in images.values()])
    apart = np.abs(stack[:, None] - stack[None]).max(-1).reshape(32, 32, -1) > 40  # pixels that differ visibly
    assert apart.mean(-1)[~np.eye(32, dtype=bool)].min() > 0.3


def test_vector_and_image_form_hold_the_same_world() -> None:
    one, two = make("toy:doors", seed=6), make("toy:doors_image", seed=6)
    for seed in range(30):
        one.reset(seed=seed), two.reset(seed=seed)
        assert one.unwrapped.cue == two.unwrapped.cue
        assert one.step(1)[1:4] == two.step(1)[1:4]


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: Catch(63), "divides the size"),
        (lambda: Catch(8, 2), "at least 3"),
        (lambda: DistractedCatch(blocks=0), "at least one block"),
        (lambda: Doors(doors=1), "doors >= 2"),
        (lambda: Doors(redraw=-1), "redraw >= 0"),
        (lambda: Doors(image=True, size=40), "multiple of 16"),
    ],
)
def test_impossible_toys_are_refused(make_it, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        make_it()


def test_rendering_a_vector_door_gives_its_image() -> None:
    env = Doors(render_mode="rgb_array", seed=0)
    env.reset(seed=0)
    assert env.render().shape == (64, 64, 3)

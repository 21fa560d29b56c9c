"""Pictures of battles: where units stand, whose they are, how healthy; the same of what an agent sees, within its sight."""

import numpy as np
import pytest
from env_adapters.smax_pictures import PIXELS, SEEN, UNIT, Pictures

OURS, THEIRS, GROUND, RING = (80, 140, 250), (240, 80, 70), (24, 24, 32), (255, 255, 255)
PICTURES = Pictures(2, 1, 32.0, (9.0, 10.0, 10.0, 9.0, 8.0, 9.0), (0.375, 0.5625, 0.625, 0.5, 0.375, 0.625))
MARINE, STALKER = np.eye(6)[0], np.eye(6)[2]


def state(*units):
    """A global state of units, each (health, x, y, type) or None for one that is dead."""
    rows = [np.zeros(UNIT) if one is None else [*one[:3], 0.0, *one[3]] for one in units]
    return np.concatenate([np.ravel(rows), [0, 0, 1], [0, 0, 0]]).astype(np.float32)


def at(picture, x, y):
    """The colour at a share of the map, from its south-west corner."""
    return tuple(picture[round((1 - y) * PIXELS - 0.5), round(x * PIXELS - 0.5)].tolist())


def count(picture, colour):
    return int((picture == colour).all(-1).sum())


def test_units_stand_where_they_are_and_north_is_above():
    picture = PICTURES.battles(state((1, 0.25, 0.75, STALKER), (1, 0.1, 0.1, MARINE), (1, 0.75, 0.25, STALKER)))
    assert picture.shape == (PIXELS, PIXELS, 3) and picture.dtype == np.uint8
    assert at(picture, 0.25, 0.75) == at(picture, 0.1, 0.1) == OURS and at(picture, 0.75, 0.25) == THEIRS
    assert at(picture, 0.25, 0.25) == at(picture, 0.5, 0.5) == GROUND
    rows, columns = np.nonzero((picture == OURS).all(-1))
    for of, x, y, radius in ((columns < 24, 0.1, 0.1, 0.375), (columns > 24, 0.25, 0.75, 0.625)):
        centre = columns[of].mean() + 0.5, PIXELS - rows[of].mean() - 0.5
        np.testing.assert_allclose(centre, (x * PIXELS, y * PIXELS), atol=0.6)
        assert of.sum() == pytest.approx(np.pi * (1.6 * radius * PIXELS / 32) ** 2, rel=0.2)


def test_a_disc_is_as_full_as_the_unit_is_healthy_and_the_dead_are_gone():
    shares = []
    for health in (0.02, 0.25, 0.5, 0.75, 1.0):
        picture = PICTURES.battles(state((health, 0.5, 0.5, STALKER), None, None))
        lost = count(picture, (28, 49, 87))
        shares.append(count(picture, OURS) / (count(picture, OURS) + lost))
        assert not count(picture, THEIRS) and (0.4 < health) == (at(picture, 0.5, 0.49) == OURS)  # from below
    assert shares[-1] == 1.0 and (np.diff(shares) > 0.1).all() and abs(shares[2] - 0.5) < 0.1
    blank = PICTURES.battles(state(None, None, None))
    assert set(map(tuple, blank.reshape(-1, 3).tolist())) == {GROUND, (110, 110, 118)}


def test_what_an_agent_sees_is_drawn_where_the_map_has_it():
    me, ally, enemy = (0.5, 0.25, 0.5, MARINE), (1.0, 0.25, 0.7, STALKER), (0.75, 0.5, 0.5, MARINE)
    others = [
        [health, *(np.array([x - me[1], y - me[2]]) * 32 / 9), 0.3, 0.3, 0.5, 0.0, *kind]
        for health, x, y, kind in (ally, enemy)
    ]
    own = [*me[:3], 0.0, *me[3]]
    vector = np.concatenate([*others, own])
    assert len(vector) == 2 * SEEN + UNIT
    np.testing.assert_allclose(PICTURES.seen(vector), [[*one[:3], 0.0, *one[3]] for one in (ally, enemy, me)])
    picture, whole = PICTURES.views(vector), PICTURES.battles(state(ally, me, enemy))
    ringed = (picture == RING).all(-1)
    assert ringed.any() and np.array_equal(
        picture[~ringed], whole[~ringed]
    )  # marine as it is, in the middle of its ring
    blind = vector.copy()
    blind[: 2 * SEEN] = 0
    assert not count(PICTURES.views(blind), THEIRS) and at(PICTURES.views(blind), 0.25, 0.49) == OURS
    gone = PICTURES.views(np.zeros(2 * SEEN + UNIT))
    assert np.array_equal(gone, PICTURES.battles(state(None, None, None)))


def test_what_a_model_is_not_sure_of_is_faint():
    reds = [
        int(PICTURES.battles(state(None, None, (1, 0.5, 0.5, sure * MARINE)))[PIXELS // 2, PIXELS // 2, 0])
        for sure in (0.0, 0.05, 0.3, 0.6, 1.0, 1.4)
    ]
    assert reds[0] == reds[1] == GROUND[0] and reds[1] < reds[2] < reds[3] < reds[4] == reds[5] == THEIRS[0]


def test_what_a_model_makes_up_is_drawn_too():
    rng = np.random.default_rng(0)
    for size in (0.1, 3.0, 1e30):
        values = (size * rng.normal(size=(4, 5, 2 * SEEN + UNIT))).astype(np.float32)
        values[0, 0, 0], values[0, 1, -9], values[0, 2, 4] = np.nan, np.inf, -np.inf
        pictures = PICTURES.views(values)
        assert pictures.shape == (4, 5, PIXELS, PIXELS, 3)
        assert np.array_equal(pictures[2, 3], PICTURES.views(values[2, 3]))

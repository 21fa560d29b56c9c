"""What a record of SMAX says of units, in numbers -> a picture of the map: a disc for each, of its team's colour, as full as
it is healthy. Of the whole battle, or of what one agent sees of it, also where a model has made those numbers up.
"""

# U units, P = PIXELS a side of the picture; a unit is health, x, y (shares of its most and of the map's sides), cooldown, type's one-hot

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from env_adapters.smax_scenarios import TYPES

Floats = NDArray[np.floating]
Pixels = NDArray[np.uint8]
PIXELS = 160
FAINT = 0.1  # of a type's one-hot, where a model is not sure that a unit is there: the surer, the clearer it is drawn
LARGER = 1.6  # discs than units, which are small on their map
UNIT, SEEN = 4 + len(TYPES), 7 + len(TYPES)  # numbers of a unit in a state, and of another one in what an agent sees
_GROUND, _WALL, _OWN = (24, 24, 32), (110, 110, 118), (255, 255, 255)
_TEAMS = np.array([(80, 140, 250), (240, 80, 70)])  # ours, theirs
_LOST = 0.35  # brightness of the part of a disc that is no health


@dataclass(frozen=True)
class Pictures:
    """allies, enemies: how many. side: of the map. sight, radius: of a unit of each type, in the map's units."""

    allies: int
    enemies: int
    side: float
    sight: tuple[float, ...]
    radius: tuple[float, ...]

    def battles(self, states: Floats) -> Pixels:
        """uint8 (..., P, P, 3) of global states (..., S): every unit that is alive, north at the top."""
        teams = np.repeat([0, 1], [self.allies, self.enemies])
        return _each(states, lambda one: self.painted(self.units(one), teams))

    def views(self, vectors: Floats) -> Pixels:
        """uint8 (..., P, P, 3) of observations (..., d): the agent, in a white ring, and the units that it sees."""
        teams = np.repeat([0, 1, 0], [self.allies - 1, self.enemies, 1])
        return _each(vectors, lambda one: self.painted(self.seen(one), teams, ringed=True))

    def units(self, state: Floats) -> Floats:
        """(U, UNIT) of a global state (S,); a dead one is zeros."""
        return state[: (self.allies + self.enemies) * UNIT].reshape(-1, UNIT)

    def seen(self, vector: Floats) -> Floats:
        """(U, UNIT) of an observation (d,): other allies, enemies, and the agent itself as the last; who is not seen is zeros."""
        own, others = vector[-UNIT:], vector[:-UNIT].reshape(-1, SEEN)
        there = others[:, -len(TYPES) :].max(1, initial=0, keepdims=True) >= FAINT
        reach = self.sight[int(own[4:].argmax())] / self.side
        place = (own[1:3] + others[:, 1:3] * reach) * there  # as it is told from the agent's own, in units of its sight
        return np.concatenate([np.column_stack([others[:, 0], place, others[:, 6:]]), own[None]])

    def painted(self, units: Floats, teams: Sequence[int] | NDArray[np.int_], ringed: bool = False) -> Pixels:
        """uint8 (P, P, 3) of units (U, UNIT) of these teams (U,); the last one is ringed."""
        picture = np.full((PIXELS, PIXELS, 3), _GROUND, np.uint8)
        picture[[0, -1]] = picture[:, [0, -1]] = _WALL
        for at, (unit, team) in enumerate(zip(units, teams, strict=True)):
            sure = min(float(unit[4:].max()), 1.0)  # 1 or 0, unless a model says so
            if sure < FAINT:
                continue
            radius = LARGER * self.radius[int(unit[4:].argmax())] * PIXELS / self.side
            x, y = unit[1] * PIXELS - 0.5, (1 - unit[2]) * PIXELS - 0.5
            rows, columns = (_around(middle, radius + 2) for middle in (y, x))
            down, right = np.ogrid[rows, columns]
            far, part = np.hypot(down - y, right - x), picture[rows, columns]
            healthy = down - y >= radius - 2 * radius * np.clip(unit[0], 0, 1)  # from below
            colour = np.where(healthy[..., None], 1.0, _LOST) * _TEAMS[team]
            rim = _OWN if ringed and at == len(units) - 1 else _GROUND  # or two would be one
            disc = np.where((far <= radius)[..., None], colour, rim)
            part[:] = np.where((far <= radius + 1)[..., None], part + sure * (disc - part), part)
        return picture


def _around(middle: float, radius: float) -> slice:
    """The pixels within a radius, of those that there are."""
    low, high = np.clip([np.ceil(middle - radius), np.floor(middle + radius) + 1], 0, PIXELS)
    return slice(int(low), int(high))


def _each(values: Floats, paint: Callable[[Floats], Pixels]) -> Pixels:
    """(..., X) -> (..., P, P, 3)."""
    known = np.clip(np.nan_to_num(values), -1e3, 1e3)  # a model may think of anything
    each = [paint(one) for one in known.reshape(-1, values.shape[-1])]
    return np.array(each, np.uint8).reshape(*values.shape[:-1], PIXELS, PIXELS, 3)

"""A scenario's name -> who fights whom in SMAX, and what is said of scenarios that SMAX cannot hold."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from env_adapters.errors import TaskError

TYPES = ("marine", "marauder", "stalker", "zealot", "zergling", "hydralisk")  # the package's, in its order


@dataclass(frozen=True)
class Scenario:
    """Units of both sides by their type; equal sides of `drawn` types at random places where types are drawn.

    shipped: whether the package has it under this name, and is asked for it. Otherwise allies and enemies hold (count,
    type) in the order of the units, or `drawn` the types, each as likely as the others, of `size` units a side; the enemy
    has the same units, as in the package.
    """

    shipped: bool = False
    allies: tuple[tuple[int, str], ...] = ()
    enemies: tuple[tuple[int, str], ...] = ()
    drawn: tuple[str, ...] = ()
    size: int = 0

    @property
    def sides(self) -> tuple[int, int]:
        """Numbers of allies and enemies of one that is not shipped."""
        if self.drawn:
            return self.size, self.size
        return sum(count for count, _ in self.allies), sum(count for count, _ in self.enemies)

    @property
    def units(self) -> list[int]:
        """The type of each unit, allies first; marines where types are drawn, as in the package."""
        if self.drawn:
            return [0] * (2 * self.size)
        return [TYPES.index(kind) for count, kind in (*self.allies, *self.enemies) for _ in range(count)]


_SHIPPED = (
    "3m", "8m", "25m", "2s3z", "3s5z", "5m_vs_6m", "10m_vs_11m", "27m_vs_30m", "3s5z_vs_3s6z", "3s_vs_5z", "6h_vs_8z",
    "smacv2_5_units", "smacv2_10_units", "smacv2_20_units",
)  # fmt: skip

# Maps of SMAC that hold no unit but the package's six, as far as units go: there is no terrain. The races are SMACv2's
# without the unit that SMAX lacks (colossus, baneling, medivac), hence their names.
SCENARIOS: dict[str, Scenario] = {name: Scenario(shipped=True) for name in _SHIPPED} | {
    "2m_vs_1z": Scenario(allies=((2, "marine"),), enemies=((1, "zealot"),)),
    "3s_vs_3z": Scenario(allies=((3, "stalker"),), enemies=((3, "zealot"),)),
    "3s_vs_4z": Scenario(allies=((3, "stalker"),), enemies=((4, "zealot"),)),
    "8m_vs_9m": Scenario(allies=((8, "marine"),), enemies=((9, "marine"),)),
    "corridor": Scenario(allies=((6, "zealot"),), enemies=((24, "zergling"),)),
    "protossish_5_vs_5": Scenario(drawn=("stalker", "zealot"), size=5),
    "terranish_5_vs_5": Scenario(drawn=("marine", "marauder"), size=5),
    "zergish_5_vs_5": Scenario(drawn=("zergling", "hydralisk"), size=5),
}

# Of SMAC and SMACv2, what would be another game here: the unit that is missing
_COLOSSUS, _MEDIVAC = "colossi, whose fire spreads and who walk over cliffs", "medivacs, which heal"
_BANELING, _CRAWLER = "banelings, which explode", "a spine crawler"
_LACKING = {
    "2c_vs_64zg": _COLOSSUS,
    "1c3s5z": _COLOSSUS,
    "MMM": _MEDIVAC,
    "MMM2": _MEDIVAC,
    "bane_vs_bane": _BANELING,
    "so_many_baneling": _BANELING,
    "2s_vs_1sc": _CRAWLER,
    "protoss_5_vs_5": _COLOSSUS,
    "terran_5_vs_5": _MEDIVAC,
    "zerg_5_vs_5": _BANELING,
}


def scenario(name: str) -> Scenario:
    """The scenario of a name. TaskError, one sentence, where there is none.

    >>> scenario("corridor").sides, scenario("2m_vs_1z").units
    ((6, 24), [0, 0, 3])
    """
    if name in SCENARIOS:
        return SCENARIOS[name]
    close = [f"smax:{one}" for one in difflib.get_close_matches(name, SCENARIOS, 3, 0.6)]
    if name in _LACKING:
        hint = f"; nearest: {', '.join(close)}" if close else ""
        raise TaskError(f"smax has no {name!r}, for it needs {_LACKING[name]}, and SMAX has {_listed()} alone{hint}")
    hint = f"close: {', '.join(close)}" if close else f"it has {', '.join(SCENARIOS)}"
    raise TaskError(f"smax has no scenario {name!r}; {hint}")


def _listed() -> str:
    return f"{', '.join(f'{one}s' for one in TYPES[:-1])} and {TYPES[-1]}s"

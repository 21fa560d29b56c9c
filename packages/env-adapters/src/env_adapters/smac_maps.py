"""The name of a SMAC map, or of a SMACv2 scenario -> what SMACv2's code is asked for."""

from __future__ import annotations

import difflib
import re
from typing import Any

from env_adapters.errors import TaskError

# SMACv2's code runs SMAC's maps, too: units, limits and rewards are SMAC's.
MAPS = (
    "2m_vs_1z", "2s_vs_1sc", "3m", "3s_vs_3z", "3s_vs_4z", "3s_vs_5z", "2s3z", "3s5z", "3s5z_vs_3s6z", "1c3s5z", "2c_vs_64zg",
    "5m_vs_6m", "8m", "8m_vs_9m", "10m_vs_11m", "25m", "27m_vs_30m", "6h_vs_8z", "MMM", "MMM2", "bane_vs_bane", "corridor",
    "so_many_baneling",
)  # fmt: skip
# race -> unit type and its probability; a type after "!" may not make up a whole team
RACES: dict[str, dict[str, float]] = {
    "protoss": {"stalker": 0.45, "zealot": 0.45, "colossus": 0.1},
    "terran": {"marine": 0.45, "marauder": 0.45, "!medivac": 0.1},
    "zerg": {"zergling": 0.45, "!baneling": 0.1, "hydralisk": 0.45},
}
# of the numbers that SMACv2's paper plays; any other is a task, too
SIZES = ("5_vs_5", "10_vs_10", "10_vs_11", "20_vs_20", "20_vs_23")
SCENARIOS = tuple(f"{race}_{size}" for race in sorted(RACES) for size in SIZES)
_SIDE = 32  # cells of SMACv2's map


def smac(name: str) -> dict[str, Any]:
    """Arguments of a SMAC map. TaskError for any other name.

    >>> smac("3m")
    {'map_name': '3m'}
    """
    if name in MAPS:
        return {"map_name": name}
    close = difflib.get_close_matches(name, MAPS, 3, 0.4)
    raise TaskError(f"there is no SMAC map {name!r}; {'close' if close else 'maps'}: {', '.join(close or MAPS)}")


def smacv2(name: str) -> dict[str, Any]:
    """Arguments of a SMACv2 scenario `<race>_<n>_vs_<m>`: teams and places are drawn anew for every episode.

    A new dictionary each time, since the package changes the one it is given. TaskError for any other name.

    >>> smacv2("zerg_5_vs_6")["capability_config"]["n_enemies"]
    6
    """
    found = re.fullmatch(r"([a-z]+)_([1-9]\d?)_vs_([1-9]\d?)", name)
    if found is None or found[1] not in RACES:
        raise TaskError(
            f"there is no SMACv2 scenario {name!r}; it is <race>_<n>_vs_<m> with a race of {', '.join(sorted(RACES))} and "
            "1 to 99 units a side, such as protoss_5_vs_5"
        )
    race, units = found[1], RACES[found[1]]
    team = {
        "dist_type": "weighted_teams",
        "unit_types": [one.lstrip("!") for one in units],
        "weights": list(units.values()),
        "exception_unit_types": [one.lstrip("!") for one in units if one.startswith("!")],
        "observe": True,
    }
    places = {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": _SIDE, "map_y": _SIDE}
    return {
        "map_name": f"10gen_{race}",
        "capability_config": {
            "n_units": int(found[2]),
            "n_enemies": int(found[3]),
            "team_gen": team,
            "start_positions": places,
        },
        # the settings of SMACv2's paper
        "obs_own_pos": True,
        "use_unit_ranges": True,
        "min_attack_range": 2,
    }

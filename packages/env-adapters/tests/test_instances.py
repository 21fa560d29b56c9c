"""Seeds of episodes and instances, and who is lost while others are made anew."""

from __future__ import annotations

from typing import Any

import numpy as np
from env_adapters.attempts import Attempts
from env_adapters.faults import Fault
from env_adapters.instances import Instances
from env_adapters.seeds import episode_seed, instance_seed


class Crew:
    """Answers nothing, and fails as it is told: a set of rows for each time it is asked."""

    def __init__(self, *faults: set[int]) -> None:
        self.faults, self.asked = list(faults), list[dict[int, int]]()

    def ask(self, what: str, given: dict[int, int]) -> tuple[dict[int, Any], dict[int, Fault]]:
        self.asked.append(dict(given))
        return {}, {row: Fault("its worker died") for row in (self.faults.pop(0) if self.faults else set())}


def made(*faults: set[int], same: bool = False, most: int = 5) -> tuple[Instances, Any]:
    crew: Any = Crew(*faults)
    found = Instances(crew, Attempts(3, most), 3, same=same)
    found.begin(7)
    return found, crew


def test_episodes_have_seeds_of_their_own_or_all_the_same() -> None:
    for same in (False, True):
        instances, _ = made(same=same)
        instances.episode[:] = 1, 2, 2
        expected = [episode_seed(7, row, 0 if same else n) for row, n in enumerate((1, 2, 2))]
        assert instances.seeds().tolist() == expected
        assert instances.seeds(np.array([False, True, False])).tolist() == [0, expected[1], 0]


def test_a_neighbour_lost_over_a_revival_is_revived_and_told() -> None:
    """Row 1 dies with the process in which row 0 is made anew."""
    instances, crew = made({1})
    assert instances.revive([0]) == {1}
    assert crew.asked == [{0: instance_seed(7, 0, 1)}, {1: instance_seed(7, 1, 1)}]
    assert instances.restarts.tolist() == [1, 1, 0] and not instances.gone.any()


def test_what_fails_too_often_is_gone() -> None:
    instances, _ = made({2}, {2}, most=2)
    assert instances.revive([2], restarted=False) == set()
    assert instances.gone.tolist() == [False, False, True]
    again, _ = made()
    again.load_state(instances.state())
    assert again.state()["restarts"].tolist() == instances.restarts.tolist() and not again.gone.any()

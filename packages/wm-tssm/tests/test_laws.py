"""The laws of a dynamics hold for wm-core's Parallel around the stack; without wm-core there is nothing to check."""

import pytest
import torch
from wm_tssm import TransformerStack, across_episodes, within_episode

pytest.importorskip("wm_core", reason="wm-core is not installed, and wm-tssm does without")

from wm_core.parallel import Parallel
from wm_core.testing import check_dynamics


def dynamics(sight, cls=TransformerStack, **parts):
    torch.manual_seed(0)
    sizes = {"layers": 2, "heads": 4, "hidden": 32} | parts
    return Parallel(cls(16, sight=sight, **sizes), deter=16, stoch=(4, 3), embed=5, action=2, hidden=8)


def test_the_laws_hold_with_resets():
    check_dynamics(dynamics(within_episode), embed={"obs": 5}, action=2)


def test_attention_across_episodes_breaks_the_law_of_resets():
    with pytest.raises(AssertionError, match="what preceded a reset"):
        check_dynamics(dynamics(across_episodes), embed={"obs": 5}, action=2)


class ShortOfOne(TransformerStack):
    """A planted bug: starts from the cache of the token before."""

    def starts(self, each, last):
        cache = super().starts(each, last)
        cache.memory.filled = cache.used - 1
        return type(cache)(cache.memory, cache.used - 1, cache.position - 1, cache.visible[:, :-1])


def test_a_cache_off_by_one_breaks_a_law():
    with pytest.raises(AssertionError, match="imagining from"):
        check_dynamics(dynamics(within_episode, ShortOfOne), embed={"obs": 5}, action=2)

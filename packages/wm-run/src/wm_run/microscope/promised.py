"""Dreams under the policy's own actions, beside dreams under the recorded ones and what came: does the policy live off errors of
its model?

Sizes: B rows, H steps ahead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from wm_run.microscope.errors import by_horizon


class Ahead(NamedTuple):
    """Of the steps ahead, (B, H) each: rewards, and how likely it goes on at each."""

    reward: Tensor
    going: Tensor


def promised(own: Ahead, recorded: Ahead, came: Ahead, begun: Tensor) -> dict[str, Any]:
    """Means by step of reward and of how often there is an end, over the rows in which none came before: the same for all three,
    and of the whole horizon their sums. begun (B,): whose episode goes on at the end of the context.

    A row whose dream has ended is still asked, for in reality it goes on: what is compared is one step at a time. Where the
    policy recorded the rows itself, own dreams that pay more, or end less often, than what came are not to be had.

    >>> came = Ahead(torch.tensor([[1.0, 2.0], [3.0, 9.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))  # the second ends at once
    >>> found = promised(came, came, came, torch.tensor([True, True]))
    >>> found["rows"], found["reward"]["own"], found["end"]["came"], found["reward_came"]
    ([2, 1], [2.0, 2.0], [0.5, 0.0], 4.0)
    """
    live = torch.cat([begun[:, None], came.going[:, :-1] > 0], 1).cumprod(1).bool()
    told = {"own": own, "recorded": recorded, "came": came}
    found: dict[str, Any] = {"rows": live.sum(0).tolist()}
    found["reward"] = {name: by_horizon(one.reward, live) for name, one in told.items()}
    found["end"] = {name: by_horizon(1 - one.going, live) for name, one in told.items()}
    for what in ("reward", "end"):
        for name, means in found[what].items():
            found[f"{what}_{name}"] = sum(mean for mean in means if mean is not None)
    return found

"""Steps of agents as they were recorded -> steps in which who is absent is in the absorbing state (DMAWM, section 4.2).

A pure function of folded steps (`wm_marl.fold`), tensors alone: nothing is stored, nothing counts as a step of the
environment. An absent agent observes nothing, may do nothing but the no-op, and its continuation flag is 0. Agents are
absent (a) when they are dead and the episode goes on, (b) all of them after a true termination.

What (b) overwrites are the first records of the next episode: this batch loses them (replay has them, and other rows show
them). The record after the last overwritten one goes on in the middle of that episode; nothing that precedes it in the row
is its past, so that its `reset` is set. Rows must not be annotated with what was made of overwritten records, for a later
batch would begin from it: `absorbed` says which they are, and a learner that uses this samples without a past.

Sizes: R rows, T time, A actions, K records.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F
from wm_core import Steps


def absorbed(terminal: Tensor, records: int) -> Tensor:
    """Which records are overwritten: the next `records` after a true termination, up to the row's end; (R, T) bool.

    terminal (R, T) bool. A termination that is itself overwritten is none: it begins nothing. Rows are walked from left to
    right, from an episode's end to the next that is still there, in log2 of their number, by doubling the stride.

    >>> absorbed(torch.tensor([[False, True, False, False, True, False, True, False]]), 2).int().tolist()
    [[0, 0, 1, 1, 0, 1, 1, 0]]
    """
    length = terminal.shape[1]
    index = torch.arange(length + 1, device=terminal.device)
    here = torch.where(F.pad(terminal, (0, 1)), index, length)  # (R, T+1); T stands for the row's end
    end = here.flip(1).cummin(1).values.flip(1)  # the first termination at or after each record
    stride = (end + records + 1).clamp(max=length)  # from a record that stays to the one after what its end overwrites
    stays = (index == 0).expand_as(stride)
    for _ in range((length // (records + 1)).bit_length()):
        stays = stays | (torch.zeros_like(stride).scatter_add_(1, stride, stays.long()) > 0)
        stride = stride.gather(1, stride)
    ends = torch.zeros_like(stride).scatter_add_(1, end, stays.long())[:, :-1] > 0  # terminations that were walked over
    count = F.pad(ends.long().cumsum(1), (records + 1, 0))[:, :-1]  # of those before each record
    return count[:, records:] > count[:, :length]


def absent(steps: Steps, *, observations: Iterable[str], noop: int | None, records: int, own_end: bool = True) -> Steps:
    """Folded steps with dead agents, and `records` records after every true termination, in the absorbing state.

    Reads `alive`, `terminal`, `action_mask`, the observations named, and gives new steps; those given stay as they are.

    | entry | a dead agent's record | an overwritten record |
    |---|---|---|
    | observations | 0 | 0 |
    | action_mask | the no-op alone | the no-op alone |
    | terminal (of the row: what the continue head learns from) | True with `own_end`, else the team's | True |
    | reward | the team's | 0 |
    | action | as recorded | the no-op |
    | first, last, reset | as recorded | False; `reset` is True at the record that follows |
    | alive | False | False |
    | state | as recorded | 0 |

    Args:
        noop: the action of the absent, as `envs.noop`; None where there is none: their mask is all True, their action 0.
        records: K; 0 overwrites nothing. The horizon of dreams is as far as a dream can look behind an end; where episodes
            are shorter than K, whole ones are lost.
        own_end: whether a dead agent's own continuation ends with its death (the paper relabels it), or goes on with the
            team's, so that it is credited with what the others earn afterwards (MAMBA, MAPPO).
    """
    over = absorbed(steps["terminal"], records)
    dead = ~steps["alive"]
    gone = dead | over
    found = dict(steps)
    for name in observations:
        found[name] = _filled(steps[name], gone, 0)
    choices = torch.arange(steps["action_mask"].shape[-1], device=over.device)
    only = choices == noop if noop is not None else choices >= 0
    found["action_mask"] = torch.where(gone[..., None], only, steps["action_mask"])
    idle = (only if noop is not None else torch.zeros_like(only)).to(steps["action"].dtype)
    found["action"] = torch.where(over[..., None], idle, steps["action"])
    found["terminal"] = steps["terminal"] | (gone if own_end else over)
    found["reward"] = _filled(steps["reward"], over, 0)
    found["alive"] = ~gone
    for name in {"first", "last"} & steps.keys():
        found[name] = steps[name] & ~over
    follows = F.pad(over[:, :-1], (1, 0)) & ~over
    found["reset"] = (steps.get("reset", steps["first"]) & ~over) | follows
    if "state" in steps:
        found["state"] = _filled(steps["state"], over, 0)
    return found


def muted(steps: Steps) -> Steps:
    """Steps in which the records of dead agents count for nothing, but the first of them: it is what the continuation flag
    learns the death from. What the ablation AS has instead, as we read "absence is predicted using a binary value"."""
    alive = steps["alive"]
    just = F.pad(alive[:, :-1], (1, 0)) & ~alive & ~steps["first"]
    return steps | {"weight": steps["weight"] * (alive | just)}


def _filled(value: Tensor, where: Tensor, content: float) -> Tensor:
    return value.masked_fill(where.view(*where.shape, *[1] * (value.dim() - 2)), content)

"""One recorded episode -> whether its records are such as environments give: one sentence for what does not fit.

Sizes: T actions, N agents. Every array is (T + 1, ...): what arrived together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

from wm_run.tally import CUT, TERMINAL, TRUNCATED

if TYPE_CHECKING:
    from wm_run.recording import About


class EpisodeError(UserError):
    """What does not fit, in one sentence."""


def check_episode(arrays: Mapping[str, NDArray[Any]], about: About) -> str:
    """How it ended: "terminal", "truncated", or "cut" where no record is the last. Raises EpisodeError."""
    _check_flags(arrays)
    count, lead = len(arrays["first"]), () if about.team is None else (about.team.agents,)
    expected = {"action": ((*lead, about.action.size), np.dtype(np.float32)), "reward": (lead, np.dtype(np.float32))}
    for key, space in about.observation_space.spaces.items():
        expected[key] = ((*lead, *space.shape), np.dtype(space.dtype))
    for key, (shape, dtype) in expected.items():
        if key not in arrays:
            raise EpisodeError(f"an episode lacks {key!r}: it has {', '.join(sorted(arrays))}")
        value = arrays[key]
        if value.shape != (count, *shape) or value.dtype != dtype:
            raise EpisodeError(
                f"{key!r} is {value.dtype} {value.shape} in an episode of {count} records, and should be {dtype} "
                f"{(count, *shape)}"
            )
    for key, value in arrays.items():
        if len(value) != count:
            raise EpisodeError(f"{key!r} has {len(value)} records in an episode of {count}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            odd = value.reshape(count, -1)
            at = int(np.flatnonzero(~np.isfinite(odd).all(1))[0])
            raise EpisodeError(
                f"{key!r} holds {odd[at][~np.isfinite(odd[at])][0]} in record {at}: mend or leave it out"
            )
    _check_actions(arrays["action"], arrays["reward"], about)
    for key, space in about.observation_space.spaces.items():
        _check_choices(key, arrays[key], space)
    if not arrays["last"][-1]:
        return CUT
    return TERMINAL if arrays["terminal"][-1] else TRUNCATED


def _check_flags(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Whether first, last and terminal are those of one episode."""
    for name in ("first", "last", "terminal"):
        flag = arrays.get(name)
        if flag is None or flag.dtype != np.bool_ or flag.ndim != 1 or not len(flag):
            raise EpisodeError(f"{name!r} of an episode is one bool a record, not {_brief(flag)}")
    first, last, terminal = arrays["first"], arrays["last"], arrays["terminal"]
    if not len(first) == len(last) == len(terminal):
        raise EpisodeError(
            f"an episode has {len(first)} records by 'first', {len(last)} by 'last' and {len(terminal)} by 'terminal'"
        )
    if len(first) < 2:
        raise EpisodeError("an episode has at least one action, so two records, not one")
    if not first[0] or first[1:].any():
        at = 0 if not first[0] else 1 + int(np.flatnonzero(first[1:])[0])
        raise EpisodeError(f"'first' is True in the first record of an episode alone, not {first[at]} in record {at}")
    if last[:-1].any():
        raise EpisodeError(
            f"'last' is True in record {int(np.flatnonzero(last)[0])} of {len(last)}: it ends the episode there"
        )
    if terminal[:-1].any() or (terminal[-1] and not last[-1]):
        at = int(np.flatnonzero(terminal)[0])
        raise EpisodeError(f"'terminal' is True in record {at} of {len(last)}, which is not the last one")


def _check_actions(action: NDArray[Any], reward: NDArray[Any], about: About) -> None:
    """Zeros at the beginning, else a one-hot for each group and continuous components in [-1, 1] where they have bounds."""
    for name, value in (("action", action), ("reward", reward)):
        if value[0].any():
            raise EpisodeError(
                f"the first record of an episode has {name} 0, for nothing led to it, not {_brief(value[0])}"
            )
    at = 0
    for size in about.action.discrete:
        group = action[1:, ..., at : at + size]
        if not (((group == 0) | (group == 1)).all() and (group.sum(-1) == 1).all()):
            raise EpisodeError(
                f"entries {at} to {at + size - 1} of an action are a one-hot, and some record has another"
            )
        at += size


def _check_choices(key: str, value: NDArray[Any], space: Any) -> None:
    """Discrete entries begin at 0 as they travel, and stay below their number."""
    kind = type(space).__name__
    if kind in ("Discrete", "MultiDiscrete"):
        most = np.asarray(space.n if kind == "Discrete" else space.nvec)
        if (value < 0).any() or (value >= most).any():
            raise EpisodeError(
                f"{key!r} holds {value[(value < 0) | (value >= most)].flat[0]}, and has {_brief(most)} values from 0 on"
            )


def _brief(value: Any) -> str:
    text = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) and value.size > 4 else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

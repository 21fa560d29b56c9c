"""Where an observation lies in its space -> the one name under which it travels in a step dictionary.

Every name is fit to travel: the entries of a step and an environment's signals keep theirs, and an observation called
like one of them has a "~" before its own. No name begins with "/", so whoever adds to a step may mark by it what is no
observation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

STEP = ("action", "reward", "first", "last", "terminal")
RESERVED = (*STEP, "weight", "reset")  # and what learners add to the steps of a batch
TEAM = ("action_mask", "alive", "state")  # of a step of several agents, and no observations
MARK = "~"


def spelled(paths: Sequence[Sequence[str]], signals: Collection[str] = ()) -> list[str]:
    """Names of entries that lie under these keys, outermost first: joined by "/".

    Where two would be one, "/" and "~" inside a key are written as in JSON Pointer, "~1" and "~0".

    >>> spelled([["arm", "speed"], ["reward"]]), spelled([["a/b"], ["a", "b"]])
    (['arm/speed', '~reward'], ['a~1b', 'a/b'])
    """
    names = ["/".join(path) for path in paths]
    if len(set(names)) < len(names):
        names = ["/".join(key.replace("~", "~0").replace("/", "~1") for key in path) for path in paths]
    taken = {"", *RESERVED, *signals}
    return [MARK + name if name in taken or name.startswith((MARK, "/")) else name for name in names]

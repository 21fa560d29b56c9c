"""What a user can get wrong, said in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium import spaces


class TaskError(ValueError):
    """A task, an option or a space that cannot be used; the message is one sentence with the way out."""


class Elsewhere(TaskError):
    """The environment lives in processes that begin with variables which this one lacks; `variables` are those."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        assignments = " ".join(f"{name}={value}" for name, value in variables.items())
        super().__init__(f"the environment lives in processes that begin with {assignments}: begin this one so")
        self.variables = dict(variables)


class Diverged(RuntimeError):
    """Re-executing an episode's actions did not lead back to the same record: the environment is not deterministic."""


class CheckError(AssertionError):
    """An environment breaks the specification that `check_env` executes."""


def brief(space: spaces.Space[Any]) -> str:
    """A space on one line of at most 100 characters, for a message.

    >>> import numpy as np
    >>> brief(spaces.Discrete(3)), len(brief(spaces.Box(np.zeros((9, 9)), np.eye(9))))
    ('Discrete(3)', 100)
    """
    text = " ".join(str(space).split())
    return text if len(text) <= 100 else f"{text[:97]}..."

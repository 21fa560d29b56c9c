"""What a user can get wrong, said in one sentence."""

from __future__ import annotations


class TaskError(ValueError):
    """A task, an option or a space that cannot be used; the message is one sentence with the way out."""


class Diverged(RuntimeError):
    """Re-executing an episode's actions did not lead back to the same record: the environment is not deterministic."""


class CheckError(AssertionError):
    """An environment breaks the specification that `check_env` executes."""

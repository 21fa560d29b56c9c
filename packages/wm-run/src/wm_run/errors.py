"""What goes wrong in writing a run."""

from wm_core.errors import UserError

EXTRA = "install wm-run"


class RunError(UserError):
    """What a user can do about it is in the sentence."""

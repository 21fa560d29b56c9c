"""Mistakes a user can mend: shown as one sentence, never as a traceback."""


class UserError(ValueError):
    """A mistake of the user's, told in one sentence that names the way out."""

    user_error = True

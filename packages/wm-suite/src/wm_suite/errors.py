"""Mistakes a user can mend."""


class SuiteError(ValueError):
    """A mistake of the user's, told in one sentence that names the way out."""

    user_error = True  # by which a command line knows that the sentence is enough

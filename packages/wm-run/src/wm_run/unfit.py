"""A state that no program of ours wrote, or another version, with right hashes -> one sentence, whatever it makes us raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wm_core.errors import UserError

from wm_run.checkpoint import Checkpoint

if TYPE_CHECKING:
    from wm_run.app import App


@contextmanager
def read_or_refused(app: App, saved: Checkpoint) -> Iterator[None]:
    """Raises UserError for what reading `saved` raises inside; a sentence for the user and a failing disk stay."""
    from wm_run.cli import mistaken

    try:
        yield
    except Exception as error:
        if mistaken(app, error) or isinstance(error, (OSError, MemoryError)):
            raise
        written, mine = saved.meta.get("version"), app.version
        weights = f"take only the weights into a new run with --init-from {saved.path}"
        if written != mine:
            raise UserError(
                f"{saved.path} was written by {app.name} {written} and cannot be gone on from by {mine}: go on with that "
                f"version, or {weights}"
            ) from error
        why = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else 'no reason given'}"
        raise UserError(
            f"the state in {saved.path} is none that {app.name} writes ({why}): copy it again from where it is whole, or "
            f"{weights}"
        ) from error

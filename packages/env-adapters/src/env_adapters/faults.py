"""What an environment raised -> one sentence, and whether trying again can help."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from env_adapters.errors import TaskError

_LETTERS = 500  # of a message: some hold a whole page
_FRAMES = 3  # of the stack that a sentence names, the innermost last


@dataclass(frozen=True)
class Fault:
    """Why an environment gave no record. reason: of it, without a subject. final: another instance does the same."""

    reason: str
    final: bool = False


def fault_of(error: BaseException) -> Fault:
    """A TaskError is a mistake in the environment's words or numbers, and final; anything else may pass.

    >>> try:
    ...     raise ConnectionError("nobody listens")
    ... except ConnectionError as error:
    ...     fault_of(error).reason.split(" (")[0]
    'ConnectionError: nobody listens'
    """
    text = " ".join(str(error).split())
    if isinstance(error, TaskError):
        return Fault(text, final=True)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent != Path(__file__).parent
    ]
    places = " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-_FRAMES:])
    what = f"{type(error).__name__}: {text[:_LETTERS]}" if text else type(error).__name__
    return Fault(f"{what} ({places})" if places else what)


def raised(row: int, fault: Fault) -> str:
    """What is told of an environment that raised."""
    return f"environment {row} raised {fault.reason} and is made anew" if not fault.final else fault.reason

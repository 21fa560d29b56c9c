"""An OSError of a file of ours -> one sentence: what is wrong with the place, and the way out."""

from __future__ import annotations

import errno
import os
import sys
import traceback

FULL = (errno.ENOSPC, errno.EDQUOT)
ELSEWHERE = {  # where a command writes if not there
    "train": "choose another --logdir",
    "plot": "choose another --out or --export",
    "": "make the folder writable, or name a copy of the run that is",
}
OURS = ("wm_run", "wm_suite")  # whose reading and writing is about places that the user named
LONGEST = 80  # characters of a path that a sentence shows


def sentence(error: OSError, command: str = "train") -> str | None:
    """What to tell the user, or None where it is no matter of a place: an environment's own files, a network.

    >>> sentence(OSError(errno.ENOSPC, "No space left on device", "runs/a"), "eval")
    'the disk is full (runs/a): free some space, then try again'
    """
    again = "give the same --logdir to go on" if command == "train" else "try again"
    if error.errno in FULL:
        return f"the disk is full ({_name(error) or 'while writing'}): free some space, then {again}"
    if error.filename and isinstance(error, PermissionError) and _unreadable(error):
        return f"cannot read {_name(error)} ({error.strerror}): ask its owner to let you (chmod a+rX)"
    if error.filename and _unwritable(error):
        return f"cannot write {_name(error)} ({error.strerror}): {ELSEWHERE.get(command, ELSEWHERE[''])}"
    if not _ours(error):
        return None
    name = _name(error) or "a file of the run"
    if error.errno == errno.ENAMETOOLONG:
        return f"{name} is too long a path for this file system: give a shorter one"
    if error.errno == errno.ENOENT:
        return f"{name} is gone: where it or its folder was removed or moved meanwhile, put it back, then {again}"
    if error.errno == errno.EISDIR:
        return f"{name} is a folder where a file should be: move it away, then {again}"
    if error.errno == errno.EIO:
        return f"the disk failed at {name} ({error.strerror}): look at it, or copy the run to another, then {again}"
    return f"cannot read or write {name} ({error.strerror or error}): mend that, then {again}"


def way_out(error: BaseException) -> str:
    """What to do about a file that could not be written."""
    number = getattr(error, "errno", None)
    if number is None or number in (*FULL, errno.EFBIG):  # the writers of weights hide the number
        return "free some disk space"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make the folder writable"
    return "mend that, then go on with the same --logdir"


def _name(error: OSError) -> str:
    said = error.filename2 or error.filename  # of two that are renamed, the one that the user sees
    name = os.fsdecode(said) if isinstance(said, (str, bytes)) else str(said or "")
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}..."


def _unreadable(error: OSError) -> bool:
    """Whether it is there, and not ours to read."""
    name = error.filename
    return isinstance(name, (str, bytes)) and os.path.isfile(name) and not os.access(name, os.R_OK)


def _unwritable(error: OSError) -> bool:
    """Whether the place itself is to blame. A file that is not found is, only where a folder was to be made."""
    if isinstance(error, FileNotFoundError):
        return traceback.extract_tb(error.__traceback__)[-1].name in ("mkdir", "makedirs")
    return isinstance(error, (PermissionError, NotADirectoryError, FileExistsError)) or error.errno == errno.EROFS


def _ours(error: OSError) -> bool:
    """Whether our own code read or wrote there, by way of nothing but Python's library."""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    outer = [name.partition(".")[0] for name in frames]
    return next((name for name in reversed(outer) if name not in sys.stdlib_module_names), "") in OURS

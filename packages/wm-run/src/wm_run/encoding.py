"""Names of files outside ASCII, under a locale that knows none: the program starts itself anew in UTF-8 mode.

Such a Python hands out surrogates for an "ä" of a path, which torch, video and TensorBoard libraries cannot open. UTF-8
mode can only be chosen when Python starts. It is what Python takes by itself under the locale C, unless PYTHONUTF8=0.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Sequence

from wm_core.errors import UserError

from wm_run import typed


def ensure(arguments: Sequence[str], program: str) -> None:
    """Begin again in UTF-8 mode where paths are not UTF-8 already; the process stays the same one.

    program: what the user typed, of which the next one will speak. Nothing happens where `arguments` were never typed.
    """
    own = typed.before(sys.orig_argv, arguments)
    if sys.getfilesystemencoding() == "utf-8" or own is None or list(sys.argv[1:]) != list(arguments):
        return
    sys.stdout.flush()
    environment = os.environ | {typed.PROGRAM: program}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *own[1:], *arguments], environment)


def open_streams() -> None:
    """Where a stream was closed for us (`2>&-`) what is said goes nowhere: the next file that is opened would get the
    stream's number otherwise, and with it what the libraries below Python say."""
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            if getattr(sys, name) is None:
                setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def tolerate() -> None:
    r"""Let stdout show what its encoding lacks as \xe4, as stderr does, instead of failing."""
    if codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def check_path(option: str, path: str) -> None:
    r"""Raises UserError for a path whose bytes are no text.

    >>> check_path("logdir", "runs/" + chr(0xdcff))
    Traceback (most recent call last):
    wm_core.errors.UserError: --logdir 'runs/\udcff' is not UTF-8: give a path of whole characters
    """
    if any(0xD800 <= ord(character) <= 0xDFFF for character in path):
        raise UserError(f"--{option} {path!a} is not UTF-8: give a path of whole characters")

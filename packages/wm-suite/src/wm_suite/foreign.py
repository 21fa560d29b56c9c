"""What a file of a run folder holds -> plain values of bounded depth, or why it is none: anybody may have written it."""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any

DEEPEST = 32  # nested lists and tables; those of a run are nested three deep
SURROGATE = re.compile("[\ud800-\udfff]")  # which JSON can name and no file can hold


class Odd(ValueError):
    """It can be read, and is nothing that a run writes: what it is, in a few words."""


def parsed(text: str | bytes) -> Any:
    r"""The value of a JSON text. Raises ValueError where it is no JSON, and Odd for what no run writes.

    >>> parsed('{"a": [1, "\\ud800"]}')
    {'a': [1, '\\ud800']}
    >>> parsed("[" * 99 + "]" * 99)
    Traceback (most recent call last):
    wm_suite.foreign.Odd: is nested deeper than 32
    """
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError as error:
        raise Odd(f"is nested deeper than {DEEPEST}") from error
    except ValueError as error:  # Python reads no longer ones, for it would take long
        raise Odd(f"holds a number of more than {sys.get_int_max_str_digits():,} digits") from error
    return plain(value)


def plain(value: Any, depth: int = 0) -> Any:
    """The same, with what cannot be written as text made visible. Raises Odd where it is nested too deeply."""
    if depth > DEEPEST:
        raise Odd(f"is nested deeper than {DEEPEST}")
    if isinstance(value, str):
        return SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    if isinstance(value, dict):
        return {plain(str(key)): plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one, depth + 1) for one in value]
    return value


def number(value: Any) -> float:
    """A value of a curve: None is nan. Raises Odd for what is no number, or larger than any that a float holds.

    >>> number(3), number(None)
    (3.0, nan)
    """
    if value is None:
        return math.nan
    if not isinstance(value, (int, float)):
        raise Odd(f"is {type(value).__name__} and no number")
    try:
        return float(value)
    except OverflowError as error:
        raise Odd("is larger than any number of a run") from error


def step(value: Any) -> float:
    """A step: finite, and at least 0. Raises Odd."""
    found = number(value)
    if not 0 <= found < math.inf:
        raise Odd(f"is {'null' if value is None else found:}")
    return found

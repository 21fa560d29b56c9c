"""`--env.size 64` among the words of a command -> the options of the task, and the words that are left.

Which options there are and of which type, the task's factory says, where its environments are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from wm_core.errors import UserError

MARK = "--env."


def taken(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The options that the words give, and the other words. Raises UserError for one without a name, or without a value.

    >>> taken(["--task", "toy:doors", "--env.cues", "8", "--env.walls=True", "--seed", "1"])
    ({'cues': 8, 'walls': True}, ['--task', 'toy:doors', '--seed', '1'])
    """
    found, left, at = {}, list[str](), 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith(MARK):
            left.append(word)
            continue
        name, equals, text = word.removeprefix(MARK).partition("=")
        name = name.replace("-", "_")
        if not name.isidentifier():
            raise UserError(f"{word!r} names no option of a task: write --env.NAME VALUE, such as --env.size 64")
        if not equals:
            if at == len(words) or words[at].startswith("--"):
                raise UserError(f"{word} needs a value: write {word} VALUE")
            text = words[at]
            at += 1
        found[name] = value(name, text)
    return found, left


def value(name: str, text: str) -> Any:
    """What a word means: a number, True or False, a list or table as in JSON, else the text itself; '"3"' is a text.

    >>> value("size", "64"), value("game", "pong"), value("game", '"3"'), value("walls", "False")
    (64, 'pong', '3', False)
    """
    try:
        read = {"True": True, "False": False}[text] if text in ("True", "False") else json.loads(text)
    except ValueError:
        return text
    if _null(read):
        raise UserError(f"--env.{name} cannot be null, which a config.toml cannot hold: leave it out for its default")
    return text if isinstance(read, float) and not abs(read) < float("inf") else read


def flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config with each option of the task as one of its own.

    >>> flat({"task": "toy:doors", "env": {"cues": 8}})
    {'task': 'toy:doors', 'env.cues': 8}
    """
    rest = {name: one for name, one in fields.items() if name != "env"}
    return rest | {f"env.{name}": one for name, one in dict(fields.get("env", {})).items()}


def _null(read: Any) -> bool:
    if isinstance(read, list | dict):
        return any(map(_null, read.values() if isinstance(read, dict) else read))
    return read is None

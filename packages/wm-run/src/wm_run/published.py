"""A published agent: a folder that plays, without the replay and the optimiser that made it. Imports no torch.

FOLDER/{agent.json, config.toml, model.safetensors, memory.safetensors, README.md}: agent.json says the format, whose agent
it is, its protocol and spaces, and the size and sha256 of the files beside it; README.md is the card, for people. The memory
is there for agents that know more than their weights. Whoever gets such a folder gets it from a stranger: only files of these
names are opened, nothing in them is executed, and every byte is checked before it is believed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_core.errors import UserError

from wm_run import durable
from wm_run.manifest import sealed

FORMAT = 1
ABOUT, CONFIG, WEIGHTS, MEMORY, CARD = (
    "agent.json",
    "config.toml",
    "model.safetensors",
    "memory.safetensors",
    "README.md",
)
NEEDED, POSSIBLE = {CONFIG, WEIGHTS}, {CONFIG, WEIGHTS, MEMORY}  # of the files that agent.json speaks for
LONGEST = 4_000_000  # bytes of an agent.json: more is none
MOST = 1_000_000  # environments
KINDS = {  # of what agent.json says; each has to be there
    "app": str,
    "version": str,
    "step": int,
    "task": str,
    "protocol": dict,
    "spaces": dict,
    "environments": int,
    "files": dict,
}


class PublishedError(UserError):
    """What a user can do about it is in the sentence."""


def there(folder: Path | str) -> bool:
    """Whether a folder is a published agent, whole or not, and no run.

    >>> there("nowhere")
    False
    """
    folder = Path(folder)
    if os.path.lexists(folder / ABOUT):
        return True
    of_a_run = ("checkpoint", "manifest.json")  # a run folder, and one of its checkpoints
    return (folder / WEIGHTS).is_file() and not any((folder / name).exists() for name in of_a_run)


def read(folder: Path | str) -> dict[str, Any]:
    """What agent.json says, once that is known to be what was published. Raises PublishedError."""
    path = Path(folder) / ABOUT
    if not path.is_file():
        raise PublishedError(f"{path} is missing, which says whose weights these are: {way_out()}")
    about = parsed(_bytes(path, LONGEST), str(path))
    absent = sorted(set(about["files"]) - {name for name in POSSIBLE if os.path.lexists(Path(folder) / name)})
    if absent:
        raise PublishedError(f"{Path(folder) / absent[0]} is missing: {way_out()}")
    return about


def parsed(text: bytes, where: str) -> dict[str, Any]:
    """The same from the bytes of an agent.json. where: how a sentence calls it.

    >>> parsed(b'{"format": 2, "app": "dreamer"}', "a/agent.json")
    Traceback (most recent call last):
    wm_run.published.PublishedError: a/agent.json has format 2, and this wm-run reads format 1: update wm-run, or look for an older one of this agent
    """
    try:
        about = json.loads(text)
        number = about["format"]
        if type(number) is not int:
            raise TypeError
        if number == FORMAT:
            _check(about)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PublishedError(f"{where} does not say what a published agent is: {way_out()}") from error
    if number != FORMAT:
        raise PublishedError(
            f"{where} has format {number}, and this wm-run reads format {FORMAT}: update wm-run, or look for an older one of "
            "this agent"
        )
    if sealed(about) != about:
        raise PublishedError(f"{where} is not what was published (its seal differs): {way_out()}")
    return dict(about)


def _check(about: Any) -> None:
    """Raises KeyError, TypeError or ValueError where something is missing, or is of another kind."""
    for name, kind in KINDS.items():
        if type(about[name]) is not kind:
            raise TypeError(name)
    if not 0 <= about["environments"] < MOST or not 0 <= about["step"] < 2**62:
        raise ValueError(about["environments"], about["step"])
    files = about["files"]
    if not set(files) >= NEEDED or not set(files) <= POSSIBLE:  # a path that leads elsewhere, too
        raise ValueError(sorted(files))
    for facts in files.values():
        if type(facts["bytes"]) is not int or type(facts["sha256"]) is not str:
            raise TypeError(facts)


def checked(folder: Path | str) -> dict[str, Any]:
    """What agent.json says, after every byte of the files that it speaks for was held against it. Raises PublishedError."""
    folder, about = Path(folder), read(folder)
    for name, facts in about["files"].items():
        text = content(folder, name, facts["bytes"])
        if len(text) != facts["bytes"] or hashlib.sha256(text).hexdigest() != facts["sha256"]:
            raise PublishedError(f"{folder / name} is not what was published (its sha256 differs): {way_out()}")
    return about


def content(folder: Path, name: str, most: int) -> bytes:
    """The bytes of a file of a published agent, at most one more than `most`. Raises PublishedError for what is none, and for a
    link that leads out of the folder: whoever published it may not choose which of the reader's files is read, or uploaded."""
    path = folder / name
    home = folder.resolve()
    homes = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]  # of the hub's cache
    real = path.resolve()
    if not real.is_file() or not any(real.is_relative_to(one) for one in homes):
        raise PublishedError(f"{path} is no file of this folder: {way_out()}")
    return _bytes(path, most)


def _bytes(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most + 1)


def described(about: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The agent.json of these files. about: what it says beside its format and them."""
    facts = {name: {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)} for name, text in files.items()}
    whole = sealed({"format": FORMAT, **about, "files": facts})
    _check(whole)
    return (json.dumps(whole, indent=1, allow_nan=False) + "\n").encode()


def write(folder: Path, about: Mapping[str, Any], files: Mapping[str, bytes], card: str) -> None:
    """A folder that holds these files and nothing else. It is there whole, or as it was. Raises PublishedError for a folder
    that holds anything but a published agent."""
    old = folder.with_name(f".replaced-{folder.name}")
    if old.exists() and not folder.exists():  # killed in between
        old.rename(folder)
    if folder.exists() and (odd := [one for one in _names(folder) if one not in (*POSSIBLE, ABOUT, CARD)]):
        raise PublishedError(
            f"{folder} holds {odd[0]}, and a published agent lies in a folder of its own: give another --to"
        )
    description = described(about, files)
    durable.make_folder(folder.parent)
    draft = folder.with_name(f".publishing-{folder.name}")
    durable.erase(draft)
    draft.mkdir()
    for name, data in {**files, ABOUT: description, CARD: card.encode()}.items():
        (draft / name).write_bytes(data)
        durable.share(draft / name)
    durable.erase(old)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    durable.sync(folder.parent)
    durable.erase(old)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]


def way_out() -> str:
    """What to do about a published agent that cannot be read."""
    return "get it again from where it is whole, and leave its files as they are"

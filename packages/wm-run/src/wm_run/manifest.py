"""logdir -> which checkpoints it holds: whole, in part, or of another format; and what each says of itself. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_core.errors import UserError

FORMAT = 1
FILES = ("model.safetensors", "state.pt")


class CheckpointError(UserError):
    """What a user can do about it is in the sentence."""


class OtherFormat(CheckpointError):
    """A checkpoint that may be whole, for another version of wm-core: nothing passes over it, nothing deletes it."""


def latest(logdir: Path | str) -> Path | None:
    """The checkpoint that `checkpoint/latest` names if it is complete, else the newest complete one, else None.

    What was being written when its process was killed is no checkpoint yet. `damaged` names those that once were whole.
    Raises OtherFormat where a later one, or the one that is named, is of a format that is not ours.
    """
    root = Path(logdir) / "checkpoint"
    pointer = root / "latest"
    name = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""  # of a damaged one nothing has it
    whole, foreign = _sorted(root)
    named = [path for path in whole.values() if path.name == name]
    path = named[0] if named else whole[max(whole)] if whole else None
    step = max([-1, *(step for step, one in whole.items() if one == path)])
    for other, error in foreign.items():
        if other > step or not named and str(other) == name:
            raise error
    return path


def agreed(logdirs: Sequence[Path | str]) -> Path | None:
    """In the first folder, the newest complete checkpoint whose step is complete in all; None where none has any.

    Processes that learn together save one after the other, and may be killed in between. Raises CheckpointError where
    some have checkpoints and no step is common, and OtherFormat where a later one is of a format that is not ours.
    """
    found = [_sorted(Path(logdir) / "checkpoint") for logdir in logdirs]
    common = set.intersection(*(set(whole) for whole, _ in found))
    for step, error in (pair for _, foreign in found for pair in foreign.items()):
        if step > max(common, default=-1):
            raise error
    if common:
        return found[0][0][max(common)]
    if not any(whole for whole, _ in found):
        return None
    lacking = [str(folder) for folder, (whole, _) in zip(logdirs, found, strict=True) if not whole]
    raise CheckpointError(
        f"the processes of this run have no checkpoint of one step ({', '.join(lacking) or 'each'} lacks the others'): "
        "put the missing one back, or give another --logdir to begin anew"
    )


def damaged(logdir: Path | str) -> list[Path]:
    """Checkpoints that were once complete and now lack a file or a part of one, newest first.

    >>> damaged("nowhere")
    []
    """
    root = Path(logdir) / "checkpoint"
    whole, foreign = _sorted(root)
    found = sorted(
        ((step, path) for step, path in steps(root) if step not in whole and step not in foreign), reverse=True
    )
    return [path for _, path in found if path.name.isdecimal()]


def passed_over(path: Path) -> list[Path]:
    """The damaged checkpoints of later steps than this one, newest first.

    >>> passed_over(Path("nowhere/checkpoint/100"))
    []
    """
    return [one for one in damaged(path.parent.parent) if path.name.isdecimal() and int(one.name) > int(path.name)]


def _sorted(root: Path) -> tuple[dict[int, Path], dict[int, OtherFormat]]:
    """Step -> a complete checkpoint, and step -> why it is of another format."""
    whole: dict[int, Path] = {}
    foreign: dict[int, OtherFormat] = {}
    for step, path in sorted(steps(root)):
        try:
            if complete(path):
                whole[step] = path
        except OtherFormat as error:
            foreign[step] = error
    return whole, foreign


def steps(root: Path) -> list[tuple[int, Path]]:
    """Every folder that may be a checkpoint, with its step."""
    folders = [(p.name.removeprefix(".replaced-"), p) for p in root.glob("*")] if root.is_dir() else []
    return [(int(name), path) for name, path in folders if name.isdecimal() and path.is_dir()]


def complete(path: Path) -> bool:
    """Whether all files are there at full length; reading checks their content. Raises OtherFormat."""
    try:
        files = read(path)["files"]
        return all((path / n).is_file() and (path / n).stat().st_size == files[n]["bytes"] for n in FILES)
    except OtherFormat:
        raise
    except (CheckpointError, FileNotFoundError):  # a run that trains may take it away meanwhile
        return False


def ours(path: Path) -> bool:
    """Whether it is complete and of our format: what is neither is not ours to delete."""
    try:
        return complete(path)
    except OtherFormat:
        return False


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself. Raises CheckpointError where it says nothing, OtherFormat for one that we cannot
    read."""
    file = path / "manifest.json"
    if not file.is_file():
        raise CheckpointError(f"no checkpoint in {path} (manifest.json is missing): {way_out(path)}")
    try:
        manifest = json.loads(file.read_text())
        number = int(manifest["format"])
        if number == FORMAT:
            int(manifest["step"]), str(manifest["app"]), dict(manifest["meta"])
            for name in FILES:
                int(manifest["files"][name]["bytes"]), str(manifest["files"][name]["sha256"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{file} is not a checkpoint's manifest: {way_out(path)}") from error
    if number != FORMAT:
        raise OtherFormat(
            f"{path} has format {number}, written by {_writer(manifest)}, and this wm-core reads format {FORMAT}: go on "
            "with that version, or move the folder away; nothing was changed"
        )
    return dict(manifest)


def kept_config(logdir: Path) -> dict[str, Any]:
    """What config.toml held when the last checkpoint was made; {} where none says."""
    path = latest(logdir)
    meta = read(path)["meta"] if path else {}
    return dict(meta.get("config", {}))


def kept_marks(logdir: Path) -> Any:
    """What the last checkpoint says of the logs, see `wm_run.logs`; None where none says."""
    path = latest(logdir)
    return read(path)["meta"].get("logs") if path else None


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a digest of all that it says, by which a changed digit is noticed."""
    plain = {name: value for name, value in manifest.items() if name != "seal"}
    return plain | {"seal": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}


def check(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raises CheckpointError where it says something else than when it was saved. One of before there was a seal is held
    against the folder's name alone."""
    if "seal" in manifest and sealed(manifest) != manifest:
        raise CheckpointError(f"{path / 'manifest.json'} is not what was saved (its seal differs): {way_out(path)}")
    if path.name.isdecimal() and int(path.name) != int(manifest["step"]):
        raise CheckpointError(
            f"{path / 'manifest.json'} says step {manifest['step']}, and its folder {path.name}: {way_out(path)}"
        )


def way_out(path: Path) -> str:
    """What to do about a checkpoint that cannot be read."""
    if (path / "checkpoint").is_dir():
        return f"a run folder is given; name one of the folders in {path / 'checkpoint'}"
    return "remove this folder to go on from the checkpoint before it, or copy it again from where it is whole"


def _writer(manifest: Mapping[str, Any]) -> str:
    """Which version wrote a manifest, as far as a foreign one says so."""
    meta = manifest.get("meta")
    version = meta.get("version") if isinstance(meta, Mapping) else None
    core, app = manifest.get("wm_core"), manifest.get("app") or "an app"
    said = [f"{app} {version}"] if version else []
    said += [f"wm-core {core}"] if core else []
    age = "newer" if int(manifest["format"]) > FORMAT else "older"
    return " with ".join(said) or f"{'a' if age == 'newer' else 'an'} {age} wm-core"

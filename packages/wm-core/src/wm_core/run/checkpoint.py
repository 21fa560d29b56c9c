"""weights, state, meta -> checkpoint/<step>/, whole or not at all.

A checkpoint is written into a hidden folder, handed to the disk, renamed, and only then named in `checkpoint/latest`.
Killed anywhere on that way, the run still has its previous checkpoint. Nothing read here can run code: weights are
safetensors, state.pt holds plain values and tensors and is read with weights_only=True.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from wm_core.errors import UserError

FORMAT = 1
FILES = ("model.safetensors", "state.pt")
NUMPY = "__numpy__"  # marks a mapping that stands for an array, or for a numpy scalar


class CheckpointError(UserError):
    """What a user can do about it is in the sentence."""


@dataclass(frozen=True)
class Checkpoint:
    """What `save` was given, on the CPU."""

    weights: dict[str, Tensor]
    state: dict[str, Any]
    meta: dict[str, Any]
    step: int
    path: Path


def save(
    logdir: Path | str,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any],
    meta: Mapping[str, Any],
    keep: int = 2,
    milestone_every: int = 0,
) -> Path:
    """Write checkpoint/<step>, then keep it and the `keep` - 1 before it. Returns its folder.

    milestone_every: the first checkpoint at or after each multiple of so many steps stays for ever; 0 for none.

    state: nested dict, list and tuple of tensors, numpy arrays and scalars, str, int, float, bool and None. Tensors come
    back on the CPU, everything else as it was. meta: what JSON can hold; its "app" is checked by `load`. A checkpoint of a
    later step belongs to a future that was cut off, and goes. Raises CheckpointError, with the older ones untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as logdir:
    ...     path = save(logdir, 10, weights={"w": torch.ones(2)}, state={"rng": np.arange(3)}, meta={"app": "toy"})
    ...     path.name, latest(logdir) == path, load(path, app="toy").state
    ('10', True, {'rng': array([0, 1, 2])})
    """
    if keep < 1:
        raise CheckpointError("a run must keep at least 1 checkpoint")
    plain, tensors = _encode(dict(state), "state"), _unshared(weights)
    try:
        described = json.dumps(dict(meta), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the meta of a checkpoint must be JSON: {error}") from error
    root = Path(logdir) / "checkpoint"
    try:
        root.mkdir(parents=True, exist_ok=True)
        before = max((s for s, p in _steps(root) if s < step and _complete(p)), default=0)
        milestone = bool(milestone_every) and step // milestone_every > before // milestone_every
        path = _commit(root, step, tensors, plain, json.loads(described), milestone)
        _point(root, path)
        _prune(root, path, keep)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # the writers hide an OSError in the others
        for draft in root.glob(".saving-*"):
            shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(
            f"could not write the checkpoint of step {step} into {root} ({_reason(error)}): "
            "free some disk space; the checkpoints before it are untouched"
        ) from error
    return path


def latest(logdir: Path | str) -> Path | None:
    """The checkpoint that `checkpoint/latest` names if it is complete, else the newest complete one, else None.

    What was being written when its process was killed is no checkpoint yet. `damaged` names those that once were whole.
    """
    root = Path(logdir) / "checkpoint"
    pointer = root / "latest"
    steps = _steps(root)
    if pointer.is_file():
        name = pointer.read_text(errors="replace").strip()  # of a damaged one nothing has the name
        if named := [path for _, path in steps if path.name == name and _complete(path)]:
            return named[0]
    found = [(step, path) for step, path in steps if _complete(path)]
    return max(found)[1] if found else None


def agreed(logdirs: Sequence[Path | str]) -> Path | None:
    """In the first folder, the newest complete checkpoint whose step is complete in all; None where none has any.

    Processes that learn together save one after the other, and may be killed in between. Raises CheckpointError where
    some have checkpoints and no step is common.
    """
    found = [dict(sorted((s, p) for s, p in _steps(Path(d) / "checkpoint") if _complete(p))) for d in logdirs]
    common = set.intersection(*map(set, found))
    if common:
        return found[0][max(common)]
    if not any(found):
        return None
    lacking = [str(folder) for folder, steps in zip(logdirs, found, strict=True) if not steps]
    raise CheckpointError(
        f"the processes of this run have no checkpoint of one step ({', '.join(lacking) or 'each'} lacks the others'): "
        "put the missing one back, or give another --logdir to begin anew"
    )


def go_back(path: Path) -> None:
    """`path` is the latest from now on; those of later steps belong to a future that is cut off, and go."""
    _point(path.parent, path)
    for step, later in _steps(path.parent):
        if step > _manifest(path)["step"]:
            shutil.rmtree(later)


def damaged(logdir: Path | str) -> list[Path]:
    """Checkpoints that were once complete and now lack a file or a part of one, newest first.

    >>> damaged("nowhere")
    []
    """
    found = sorted(_steps(Path(logdir) / "checkpoint"), reverse=True)
    return [path for _, path in found if path.name.isdecimal() and not _complete(path)]


def load(path: Path | str, *, app: str | None = None) -> Checkpoint:
    """Read a checkpoint after checking every byte of it against its manifest.

    app: whose checkpoint it must be. Raises CheckpointError, in one sentence with the way out.
    """
    path = Path(path)
    manifest = _manifest(path)
    if app is not None and manifest["app"] != app:
        raise CheckpointError(
            f"{path} is a checkpoint of {manifest['app'] or 'no app'!r}, not of {app!r}: use that app"
        )
    for name in FILES:
        file, expected = path / name, manifest["files"][name]
        if not file.is_file():
            raise CheckpointError(f"{file} is missing: {_way_out(path)}")
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != expected["sha256"]:
                raise CheckpointError(f"{file} is not what was saved (its sha256 differs): {_way_out(path)}")
    try:
        weights = safetensors.torch.load_file(path / "model.safetensors")
        plain = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        state = _decode(plain)
    except Exception as error:  # whatever a foreign file makes the two readers raise
        raise CheckpointError(f"{path} cannot be read safely ({_reason(error)}): {_way_out(path)}") from error
    return Checkpoint(weights, state, manifest["meta"], manifest["step"], path)


def _commit(
    root: Path, step: int, weights: dict[str, Tensor], state: Any, meta: dict[str, Any], milestone: bool
) -> Path:
    """Everything on disk under a hidden name, then one rename."""
    for leftover in root.glob(".saving-*"):
        shutil.rmtree(leftover)
    draft, path = root / f".saving-{step}", root / str(step)
    draft.mkdir()
    _weights_file(draft / FILES[0], weights)
    _state_file(draft / FILES[1], state)
    files = {}
    for name in FILES:
        with (draft / name).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        files[name] = {"sha256": digest, "bytes": (draft / name).stat().st_size}
    manifest = {"format": FORMAT, "app": meta.get("app", ""), "step": step, "files": files, "meta": meta}
    manifest |= {"milestone": True} if milestone else {}
    _text_file(draft / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    _sync_folder(draft)
    old = root / f".replaced-{step}"
    if path.exists():  # saved twice at one step: `_steps` still finds the first one under this name
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    draft.rename(path)
    _sync_folder(root)
    shutil.rmtree(old, ignore_errors=True)
    return path


def _point(root: Path, path: Path) -> None:
    """Name `path` in `latest`, in one step."""
    draft = root / "latest.draft"
    _text_file(draft, path.name + "\n")
    draft.replace(root / "latest")
    _sync_folder(root)


def _prune(root: Path, path: Path, keep: int) -> None:
    """Only `path`, the keep - 1 newest complete ones before it and the milestones before it stay."""
    step = int(path.name)
    older = sorted((s, p) for s, p in _steps(root) if s < step and _complete(p))
    kept = {path, *(p for _, p in older[len(older) - min(len(older), keep - 1) :])}
    kept |= {p for _, p in older if _manifest(p).get("milestone")}
    for _, other in _steps(root):
        if other not in kept:
            shutil.rmtree(other)


def _steps(root: Path) -> list[tuple[int, Path]]:
    """Every folder that may be a checkpoint, with its step."""
    folders = [(p.name.removeprefix(".replaced-"), p) for p in root.glob("*")] if root.is_dir() else []
    return [(int(name), path) for name, path in folders if name.isdecimal() and path.is_dir()]


def _complete(path: Path) -> bool:
    """Whether all files are there at full length. `load` checks their content."""
    try:
        files = _manifest(path)["files"]
        return all((path / n).is_file() and (path / n).stat().st_size == files[n]["bytes"] for n in FILES)
    except (CheckpointError, FileNotFoundError):  # a run that trains may take it away meanwhile
        return False


def _manifest(path: Path) -> dict[str, Any]:
    file = path / "manifest.json"
    if not file.is_file():
        raise CheckpointError(f"no checkpoint in {path} (manifest.json is missing): {_way_out(path)}")
    try:
        manifest = json.loads(file.read_text())
        number = int(manifest["format"])
        if number == FORMAT:
            int(manifest["step"]), str(manifest["app"]), dict(manifest["meta"])
            for name in FILES:
                int(manifest["files"][name]["bytes"]), str(manifest["files"][name]["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is not a checkpoint's manifest: {_way_out(path)}") from error
    if number != FORMAT:
        age = "newer" if number > FORMAT else "older"
        raise CheckpointError(
            f"{path} has format {number}, this wm-core reads {FORMAT}: install the {age} wm-core that wrote it"
        )
    return dict(manifest)


def _reason(error: Exception) -> str:
    """The first sentence of what went wrong."""
    first = str(error).strip().split("\n")[0].split(". ")[0]
    return f"{type(error).__name__}: {first}"


def _way_out(path: Path) -> str:
    if (path / "checkpoint").is_dir():
        return f"a run folder is given; name one of the folders in {path / 'checkpoint'}"
    return "remove this folder to go on from the checkpoint before it, or copy it again from where it is whole"


def _weights_file(path: Path, weights: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(weights, path)


def _state_file(path: Path, state: Any) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        _sync(file)


def _text_file(path: Path, text: str) -> None:
    with path.open("wb") as file:
        file.write(text.encode())
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unshared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, each alone in its storage, as safetensors wants them."""
    ready: dict[str, Tensor] = {}
    used: set[int] = set()
    for name, value in weights.items():
        tensor = _compact(value).contiguous()
        ready[name] = tensor.clone() if tensor.data_ptr() in used else tensor  # tied weights are saved twice
        used.add(ready[name].data_ptr())
    return ready


def _compact(value: Tensor) -> Tensor:
    """On the CPU, in a storage of its own size: a view would drag the whole buffer into the file."""
    value = value.detach().cpu()
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()


def _encode(value: Any, where: str) -> Any:
    """What torch.load(weights_only=True) accepts: numpy as marked bytes. Raises CheckpointError naming the place."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return _compact(value)
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.hasobject or array.dtype.names:
            raise CheckpointError(f"cannot save {where}: numpy {array.dtype} is not plain numbers or text")
        raw = (
            torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8)
            if array.nbytes
            else torch.zeros(0, dtype=torch.uint8)
        )
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {NUMPY: kind, "dtype": array.dtype.str, "shape": list(array.shape), "raw": raw}
    if type(value) in (list, tuple):
        return type(value)(_encode(item, f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(value, Mapping):
        odd = [key for key in value if type(key) not in (str, int) or key == NUMPY]
        if odd:
            raise CheckpointError(f"cannot save {where}: its key {odd[0]!r} is not a str or int, or is reserved")
        return {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise CheckpointError(f"cannot save {where}: {type(value).__name__} is not a tensor, numpy array or plain value")


def _decode(value: Any) -> Any:
    """Undo `_encode`."""
    if isinstance(value, dict):
        if NUMPY not in value:
            return {key: _decode(item) for key, item in value.items()}
        dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
        array = np.frombuffer(value["raw"].numpy().tobytes(), dtype).reshape(shape).copy()
        return array if value[NUMPY] == "array" else array[()]
    if isinstance(value, (list, tuple)):
        return type(value)(_decode(item) for item in value)
    return value

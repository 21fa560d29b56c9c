"""weights, state, meta -> checkpoint/<step>/, whole or not at all.

A checkpoint is written into a hidden folder, handed to the disk, renamed, and only then named in `checkpoint/latest`.
Killed anywhere on that way, the run still has its previous checkpoint. Nothing read here can run code: weights are
safetensors, state.pt holds plain values and tensors and is read with weights_only=True.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from wm_run import durable, places
from wm_run import manifest as manifests
from wm_run.manifest import (
    FILES,
    FORMAT,
    CheckpointError,
    OtherFormat,
    agreed,
    damaged,
    latest,
    ours,
    passed_over,
    way_out,
)

__all__ = [
    "FILES",
    "FORMAT",
    "Checkpoint",
    "CheckpointError",
    "OtherFormat",
    "agreed",
    "check_step",
    "damaged",
    "go_back",
    "latest",
    "load",
    "passed_over",
    "save",
]
NUMPY = "__numpy__"  # marks a mapping that stands for an array, or for a numpy scalar


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
    later step belongs to a future that was cut off, and goes; one that cannot be read stays, as unread-<step> where it
    is in the way. Raises CheckpointError, with the older ones untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as logdir:
    ...     path = save(logdir, 10, weights={"w": torch.ones(2)}, state={"rng": np.arange(3)}, meta={"app": "toy"})
    ...     path.name, latest(logdir) == path, load(path, app="toy").state
    ('10', True, {'rng': array([0, 1, 2])})
    """
    if keep < 1:
        raise CheckpointError("a run must keep at least 1 checkpoint")
    plain, tensors = _encode(dict(state), "state"), plain_tensors(weights)
    try:
        described = json.dumps(dict(meta), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the meta of a checkpoint must be JSON: {error}") from error
    root = Path(logdir) / "checkpoint"
    try:
        durable.make_folder(root)
        before = max((s for s, p in manifests.steps(root) if s < step and ours(p)), default=0)
        milestone = bool(milestone_every) and step // milestone_every > before // milestone_every
        path = _commit(root, step, tensors, plain, json.loads(described), milestone)
        _point(root, path)
        _prune(root, path, keep)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # the writers hide an OSError in the others
        for draft in root.glob(".saving-*"):
            _erase(draft)
        raise CheckpointError(
            f"could not write the checkpoint of step {step} into {root} ({_reason(error)}): "
            f"{places.way_out(error)}; the checkpoints before it are untouched"
        ) from error
    return path


def go_back(path: Path) -> None:
    """`path` is the latest from now on; those of later steps belong to a future that is cut off, and go."""
    _point(path.parent, path)
    for step, later in manifests.steps(path.parent):
        if step > manifests.read(path)["step"] and ours(later):
            _remove(later)


def load(path: Path | str, *, app: str | None = None) -> Checkpoint:
    """Read a checkpoint after checking every byte of it against its manifest.

    app: whose checkpoint it must be. Raises CheckpointError, in one sentence with the way out.
    """
    path = Path(path)
    manifest = manifests.read(path)
    manifests.check(path, manifest)
    if app is not None and manifest["app"] != app:
        raise CheckpointError(
            f"{path} is a checkpoint of {manifest['app'] or 'no app'!r}, not of {app!r}: use that app"
        )
    for name in FILES:
        file, expected = path / name, manifest["files"][name]
        if not file.is_file():
            raise CheckpointError(f"{file} is missing: {way_out(path)}")
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != expected["sha256"]:
                raise CheckpointError(f"{file} is not what was saved (its sha256 differs): {way_out(path)}")
    try:
        weights = safetensors.torch.load_file(path / "model.safetensors")
        plain = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        state = _decode(plain)
    except Exception as error:  # whatever a foreign file makes the two readers raise
        raise CheckpointError(f"{path} cannot be read safely ({_reason(error)}): {way_out(path)}") from error
    return Checkpoint(weights, state, manifest["meta"], manifest["step"], path)


def check_step(saved: Checkpoint) -> None:
    """Raises CheckpointError where a manifest without a seal names another step than the run stood at."""
    stood = saved.state.get("loop", {}).get("steps", saved.step)
    if stood != saved.step:
        raise CheckpointError(
            f"{saved.path} says step {saved.step}, and its run stood at {stood}: {way_out(saved.path)}"
        )


def _commit(
    root: Path, step: int, weights: dict[str, Tensor], state: Any, meta: dict[str, Any], milestone: bool
) -> Path:
    """Everything on disk under a hidden name, then one rename."""
    for leftover in (*root.glob(".saving-*"), *root.glob(".removing-*")):
        durable.erase(leftover)
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
    manifest = {"format": FORMAT, "wm_core": _version(), "app": meta.get("app", ""), "step": step, "files": files}
    manifest |= {"meta": meta} | ({"milestone": True} if milestone else {})
    _manifest_file(draft / "manifest.json", json.dumps(manifests.sealed(manifest), indent=1) + "\n")
    durable.sync(draft)
    old = root / f".replaced-{step}"
    if os.path.lexists(path) and not ours(path):
        _set_aside(path)
    if path.exists():  # saved twice at one step: `steps` still finds the first one under this name
        _erase(old)
        path.rename(old)
    draft.rename(path)
    durable.sync(root)
    _erase(old)
    return path


def _point(root: Path, path: Path) -> None:
    """Name `path` in `latest`, in one step."""
    durable.write(root / "latest", path.name + "\n")


def _prune(root: Path, path: Path, keep: int) -> None:
    """Of those that can be read only `path`, the keep - 1 newest before it and the milestones before it stay."""
    step = int(path.name)
    readable = sorted((s, p) for s, p in manifests.steps(root) if ours(p))
    older = [p for s, p in readable if s < step]
    kept = {path, *older[len(older) - min(len(older), keep - 1) :]}
    kept |= {p for p in older if manifests.read(p).get("milestone")}
    for other in damaged(root.parent):
        if int(other.name) < step:
            _set_aside(other)
    for _, other in readable:
        if other not in kept:
            _remove(other)


def _remove(path: Path) -> None:
    """Gone as a checkpoint in one step, so that none is ever seen in part for having been removed in part."""
    hidden = path.with_name(f".removing-{path.name.removeprefix('.replaced-')}")
    _erase(hidden)
    path.rename(hidden)
    durable.erase(hidden)


def _erase(path: Path) -> None:
    """As far as it can be: what stays is erased by the next save, or that says why it cannot be."""
    with suppress(OSError):
        durable.erase(path)


def _set_aside(path: Path) -> None:
    """Out of the way, under a name that says that it could not be read: somebody may mend it."""
    names = (path.with_name(f"unread-{path.name}{f'-{k}' if k else ''}") for k in itertools.count())
    path.rename(next(name for name in names if not os.path.lexists(name)))


def _version() -> str:
    """Of this wm-core, as installed."""
    try:
        return importlib.metadata.version("wm-core")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _reason(error: Exception) -> str:
    """The first sentence of what went wrong."""
    first = str(error).strip().split("\n")[0].split(". ")[0]
    return f"{type(error).__name__}: {first}"


def _weights_file(path: Path, weights: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(weights, path)
    durable.share(path)


def _state_file(path: Path, state: Any) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def _manifest_file(path: Path, text: str) -> None:
    durable.fill(path, text)


def plain_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
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

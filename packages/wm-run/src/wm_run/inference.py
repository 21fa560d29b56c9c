"""An agent's weights and memory <-> the files of a published agent, as it is loaded: without replay and optimiser.

Both are safetensors, which hold numbers and no code. Float32 stays float32: half the numbers would be other scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor
from wm_core.types import Carry

from wm_run import published
from wm_run.checkpoint import Checkpoint, plain_tensors
from wm_run.published import MEMORY, WEIGHTS, PublishedError, way_out

if TYPE_CHECKING:
    from wm_run.app import App

DEEPEST = 20  # levels of a memory


def files(weights: Mapping[str, Tensor], memory: Carry = None) -> tuple[dict[str, bytes], Any]:
    """The bytes of both files by name, and the memory's structure as JSON, null where there is no memory.

    >>> made, structure = files({"w": torch.ones(2)}, {"bank": torch.zeros(1, 3), "at": (torch.zeros(1),)})
    >>> sorted(made), structure
    (['memory.safetensors', 'model.safetensors'], {'dict': {'bank': 0, 'at': {'tuple': [1]}}})
    """
    found = {WEIGHTS: safetensors.torch.save(plain_tensors(weights))}
    if memory is None:
        return found, None
    leaves: list[Tensor] = []
    structure = _packed(memory, leaves)
    named = {str(at): torch.view_as_real(leaf) if leaf.is_complex() else leaf for at, leaf in enumerate(leaves)}
    return found | {MEMORY: safetensors.torch.save(plain_tensors(named))}, structure


def _packed(value: Carry, leaves: list[Tensor]) -> Any:
    """What a carry is made of, with the place of each tensor among the leaves."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        leaves.append(value)
        return {"complex": len(leaves) - 1} if value.is_complex() else len(leaves) - 1
    if isinstance(value, Mapping):
        return {"dict": {str(name): _packed(one, leaves) for name, one in value.items()}}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_packed(one, leaves) for one in value]}
    raise PublishedError(f"a memory that holds a {type(value).__name__} cannot be published: only tensors can")


def _unpacked(value: Any, leaves: Callable[[int], Tensor], depth: int = 0) -> Carry:
    """Undo `_packed`. Raises KeyError, TypeError or ValueError for what it never makes."""
    if value is None:
        return None
    if type(value) is int:
        return leaves(value)
    if depth > DEEPEST:
        raise ValueError("too deep")
    ((kind, inside),) = value.items()
    if kind == "complex":
        return torch.view_as_complex(leaves(inside))
    if kind == "dict":
        return {name: _unpacked(one, leaves, depth + 1) for name, one in inside.items()}
    return {"list": list, "tuple": tuple}[kind](_unpacked(one, leaves, depth + 1) for one in inside)


def load(folder: Path, *, app: App | None = None) -> Checkpoint:
    """A published agent as the checkpoint that it was made of: its weights, its step, and of its state what it remembers.

    app: whose it must be. Raises PublishedError, in one sentence, for what is not whole or holds anything but numbers.
    """
    about = published.checked(folder)
    if app is not None and about["app"] != app.name:
        raise PublishedError(f"{folder} holds an agent of {about['app']!r}, {app.instead_of(about['app'])}")
    try:
        read = {
            name: safetensors.torch.load(published.content(folder, name, facts["bytes"]))
            for name, facts in about["files"].items()
            if name in (WEIGHTS, MEMORY)
        }
        leaves = read.get(MEMORY, {})
        memory = _unpacked(about.get("memory"), lambda at: leaves[str(at)])
    except Exception as error:  # whatever a foreign file makes the reader raise
        what = str(error).strip().split("\n")[0]
        raise PublishedError(f"the weights in {folder} cannot be read ({what}): {way_out()}") from error
    scores = [0.0] * about["environments"]
    state = {"loop": {"carry": memory, "score": scores, "steps": about["step"]}} if memory is not None else {}
    return Checkpoint(read[WEIGHTS], state, {"app": about["app"], "version": about["version"]}, about["step"], folder)

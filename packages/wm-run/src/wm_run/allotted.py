"""Networks -> the memory that they ask for, told from shapes before the large part of it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 - torch documents it, and has no other door
from wm_core.learner import Learner

from wm_run.memory import check_memory, free_memory
from wm_run.preflight import nested_bytes

SMALL = 500_000_000  # bytes; or a quarter of what is free, if that is less
WAY_OUT = "choose smaller networks (--size, or the number that makes them large)"


def built(make: Callable[[str], Learner], device: str) -> Learner:
    """What `make(device)` makes. Raises UserError where memory cannot hold it, before most of it is asked for.

    Small networks are simply made. Where they turn out large they are made once more without memory, of shapes alone (as
    `device` "meta"), which tells what all of them take; it does not come first because torch then imports its compiler.
    """
    free = free_memory()
    if free is None:
        return make(device)
    try:
        with Allotted(min(SMALL, free.bytes // 4)):
            return make(device)
    except Exceeded as stopped:
        asked, needed = stopped.asked, whole(make, device)
    check_memory(max(asked, needed or 0), free, "for its networks", WAY_OUT)
    with Allotted(free.bytes) as allotted:
        try:
            return make(device)
        except Exceeded:
            check_memory(allotted.asked, free, "for its networks", WAY_OUT)
            raise


def whole(make: Callable[[str], Learner], device: str) -> int | None:
    """Bytes of all weights, gradients and moments in this machine's memory.

    None where networks look at values while they are made, which shapes have none of; torch says it in these ways. They are
    then made as they are, up to what is free.
    """
    try:
        with torch.device("meta"):
            learner = make("meta")
    except (RuntimeError, TypeError):  # item() and bool(), copies (NotImplementedError is one); numpy()
        return None
    weights = nested_bytes(learner.state_dict())
    return 2 * weights + nested_bytes(learner.state()) if device == "cpu" else weights


class Exceeded(Exception):
    """asked: bytes in all, with those that were not given."""

    def __init__(self, asked: int) -> None:
        super().__init__(asked)
        self.asked = asked


class Allotted(TorchDispatchMode):
    """No more than so many bytes of tensors are made in this machine's memory inside: one more raises Exceeded before it is
    made; a card's memory is not counted.

    What torch makes from given sizes, or like another tensor, is counted beforehand: that is what weights and moments are.

    >>> with Allotted(100) as allotted:
    ...     _ = torch.zeros(5)
    >>> allotted.asked
    20
    """

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked, self.most = 0, most

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # else the first operation inside imports the whole compiler: seconds
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.asked += _new(func, args, kwargs)
        if self.asked > self.most:
            raise Exceeded(self.asked)
        return func(*args, **kwargs)


def _new(func: Any, args: Any, kwargs: Any) -> int:
    """Bytes of the tensor that an operation makes of sizes or like another one; 0 for any other operation."""
    schema = func._schema  # noqa: SLF001 - what torch says of an operation
    if len(schema.returns) != 1 or schema.returns[0].alias_info is not None:
        return 0  # of another's memory
    given = {said.name: value for said, value in zip(schema.arguments, args, strict=False)} | kwargs
    like = next((value for value in args if isinstance(value, torch.Tensor)), None)
    if "size" in given:
        shape = given["size"]
    elif schema.name in ("aten::clone", "aten::_to_copy") or schema.name.endswith("_like"):
        shape = like.shape if like is not None else ()
    elif schema.name == "aten::eye":
        shape = (given["n"], given.get("m", given["n"]))
    else:
        return 0
    device = given.get("device") or (like.device if like is not None else torch.get_default_device())
    if torch.device(device).type != "cpu":
        return 0
    dtype = given.get("dtype") or (like.dtype if like is not None else torch.get_default_dtype())
    return math.prod(map(int, shape)) * int(dtype.itemsize)

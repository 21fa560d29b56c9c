"""Networks -> the memory that they ask for, told from shapes before the large part of it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 - torch documents it, and has no other door
from wm_core.learner import Learner

from wm_run.gpu_memory import free_on
from wm_run.memory import Free, check_memory, free_memory
from wm_run.preflight import nested_bytes

SMALL = 500_000_000  # bytes; or a quarter of what is free, if that is less
WAY_OUT = "choose smaller networks (--size, or the number that makes them large)"


def built(make: Callable[[str], Learner], device: str) -> Learner:
    """What `make(device)` makes. Raises UserError where this machine's memory, or the card's, cannot hold it, before most of it
    is asked for.

    Small networks are simply made. Where they turn out large they are made once more without memory, of shapes alone (as
    `device` "meta"), which tells what all of them take; it does not come first because torch then imports its compiler.
    """
    asked = {"cpu": free_memory(), device: free_memory() if device == "cpu" else free_on(device)}
    rooms = {place: free for place, free in asked.items() if free is not None}
    try:
        return _within(make, device, {place: min(SMALL, free.bytes // 4) for place, free in rooms.items()})
    except Exceeded as stopped:
        found = {stopped.place: stopped.asked}
    if needed := whole(make):
        for place in rooms:  # weights pass through this machine's memory, wherever they learn
            found[place] = max(found.get(place, 0), needed.all if place == device else needed.weights)
    _check(found, rooms)
    try:
        return _within(make, device, {place: free.bytes for place, free in rooms.items()})
    except Exceeded as stopped:
        _check({stopped.place: stopped.asked}, rooms)
        raise


def _within(make: Callable[[str], Learner], device: str, rooms: dict[str, int]) -> Learner:
    with ExitStack() as stack:
        for place, most in rooms.items():
            stack.enter_context(Allotted(most, place))
        return make(device)


def _check(needed: dict[str, int], rooms: dict[str, Free]) -> None:
    for place, bytes in needed.items():
        check_memory(bytes, rooms[place], "for its networks", WAY_OUT)


class Whole(NamedTuple):
    """Bytes of all weights, and of these with gradients and moments."""

    weights: int
    all: int


def whole(make: Callable[[str], Learner]) -> Whole | None:
    """What networks take in all.

    None where networks look at values while they are made, which shapes have none of; torch says it in these ways. They are
    then made as they are, up to what is free.
    """
    try:
        with torch.device("meta"):
            learner = make("meta")
    except (RuntimeError, TypeError):  # item() and bool(), copies (NotImplementedError is one); numpy()
        return None
    weights = nested_bytes(learner.state_dict())
    return Whole(weights, 2 * weights + nested_bytes(learner.state()))


class Exceeded(Exception):
    """asked: bytes in all, with those that were not given. place: whose, as torch names a device."""

    def __init__(self, asked: int, place: str) -> None:
        super().__init__(asked)
        self.asked, self.place = asked, place


class Allotted(TorchDispatchMode):
    """No more than so many bytes of tensors are made in this machine's memory inside, or another `place`'s (cuda): one more
    raises Exceeded before it is made; what lies elsewhere is not counted.

    What torch makes from given sizes, or like another tensor, is counted beforehand: that is what weights and moments are.

    >>> with Allotted(100) as allotted:
    ...     _ = torch.zeros(5)
    >>> allotted.asked
    20
    """

    def __init__(self, most: int, place: str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked, self.most, self.place = 0, most, place

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # else the first operation inside imports the whole compiler: seconds
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.asked += _new(func, args, kwargs, self.place)
        if self.asked > self.most:
            raise Exceeded(self.asked, self.place)
        return func(*args, **kwargs)


def _new(func: Any, args: Any, kwargs: Any, place: str) -> int:
    """Bytes of the tensor that an operation makes there of sizes or like another one; 0 for any other operation."""
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
    if torch.device(device).type != place:
        return 0
    dtype = given.get("dtype") or (like.dtype if like is not None else torch.get_default_dtype())
    return math.prod(map(int, shape)) * int(dtype.itemsize)

"""A recorder for machines without a GPU: torch's operations are written down as they are called, and made again.

What a CUDA graph keeps of a function is its kernels with the addresses and the numbers they were started with. Here it
is the operations that reach torch's dispatcher, with the tensors they touched and the numbers they were given: no
Python runs at a replay, so what Python would have decided or counted anew stays as it was, as on a GPU.

It is kinder than a graph in one way: a number read on the host (`item`) does not end the recording, it is frozen too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 - torch documents it, and has no other door
from torch.utils._pytree import tree_leaves, tree_map  # noqa: PLC2701 - torch's own, and it has no other door

TORCHS = frozenset({"aten", "mkldnn", "prims", "prim", "profiler"})  # namespaces whose operators hold no Python
# what these operators change although their schema does not say so
UNDECLARED = dict.fromkeys(
    ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::miopen_batch_norm"), ("running_mean", "running_var")
)


class Dispatched:
    """A `wm_core.fast.capture.Recorder` that keeps dispatched operations; `replays` counts what was replayed.

    >>> x, rate = torch.ones(2), [2.0]
    >>> given, replay = Dispatched().record(lambda: x * rate[0], [])
    >>> x[:], rate[0] = 3.0, 100.0
    >>> replay()
    >>> given  # x is read anew, the rate is not
    tensor([6., 6.])
    """

    def __init__(self) -> None:
        self.replays = 0

    def warm(self, call: Callable[[], Any]) -> Any:
        return call()

    def record(self, call: Callable[[], Any], generators: Sequence[torch.Generator]) -> tuple[Any, Callable[[], None]]:
        """The operations are made while they are recorded, and what they changed is put back."""
        drawn = {_name(one): one for one in (*generators, torch.default_generator)}
        states = {key: one.get_state() for key, one in drawn.items()}
        tape = _Tape(frozenset(drawn))
        try:
            with tape:
                given = call()
        finally:
            tape.undo()
            for key, one in drawn.items():
                one.set_state(states[key])
        out = [(leaf.detach(), tape.reference(leaf)) for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        tape.held.clear()

        @torch.no_grad()
        def replay() -> None:
            self.replays += 1
            made: dict[int, Any] = {}
            for operation in tape.operations:
                operation.again(made)
            for fixed, reference in out:
                fixed.copy_(_found(reference, made))

        return given, replay


@dataclass(frozen=True)
class _Inside:
    """A tensor made while recording: which storage it lies in, and how."""

    number: int
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    conjugate: bool
    negative: bool

    def of(self, storage: torch.UntypedStorage) -> Tensor:
        view = torch.empty(0, dtype=self.dtype, device=storage.device)
        view.set_(storage, self.offset, self.size, self.stride)
        view = torch._conj(view) if self.conjugate else view  # noqa: SLF001 - conj() would copy
        return torch._neg_view(view) if self.negative else view  # noqa: SLF001


@dataclass(frozen=True)
class _Opaque:
    """A tensor without a storage of torch's, such as a weight packed for oneDNN."""

    number: int


@dataclass(frozen=True)
class _Operation:
    func: Any
    args: Any
    kwargs: Any
    new: tuple[tuple[int, int], ...]  # (place among the leaves of the result, number)

    def again(self, made: dict[int, Any]) -> None:
        args, kwargs = tree_map(lambda one: _found(one, made), (self.args, self.kwargs))
        leaves = tree_leaves(self.func(*args, **kwargs))
        for place, number in self.new:
            leaf = leaves[place]
            made[number] = leaf if leaf.is_mkldnn else leaf.untyped_storage()


def _found(one: Any, made: dict[int, Any]) -> Any:
    if isinstance(one, _Inside):
        return one.of(made[one.number])
    return made[one.number] if isinstance(one, _Opaque) else one


class _Tape(TorchDispatchMode):
    """Writes down what computes. Views are not kept: every tensor is found again by its place in a storage."""

    def __init__(self, registered: frozenset[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.registered = registered
        # as outside of a mode, where conjugates are made real; inside they would be taken for what they stand for
        self.keys = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()  # noqa: SLF001
        self.operations: list[_Operation] = []
        self.numbers: dict[int, int] = {}  # of a storage (or an opaque tensor) made inside
        self.outside: set[int] = set()
        self.held: list[Any] = []  # so that no address is used twice
        self.before: list[tuple[Tensor, Tensor]] = []  # bytes of what lay outside and was changed, and as they were

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # else the first operation inside imports the whole compiler: seconds
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace not in TORCHS:  # one of ours: what its body calls
            known = len(self.operations)
            with torch.no_grad(), torch._C._ForceDispatchKeyGuard(*self.keys), self:  # noqa: SLF001
                out = func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs)  # noqa: SLF001
            if len(self.operations) > known:
                return out
            raise RuntimeError(f"{func} is a kernel of its own, and nothing is known of what it holds")
        for generator in (one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Generator)):
            if _name(generator) not in self.registered:
                raise RuntimeError("a generator that is not registered was drawn from while recording")
        found = tree_map(lambda one: self.reference(one) if isinstance(one, Tensor) else one, (args, kwargs))
        written = list(_written(func, args, kwargs))
        for tensor in written:
            self._keep(tensor)
        out = func(*args, **kwargs)
        new = tuple(self._new(tree_leaves(out)))
        if new or written:
            self.operations.append(_Operation(func, found[0], found[1], new))
        return out

    def reference(self, tensor: Tensor) -> Any:
        """How a tensor is found at a replay: itself, where it lies outside."""
        key = _key(tensor)
        if key not in self.numbers:
            if key not in self.outside:
                self.outside.add(key)
                self.held.append(tensor)
            return tensor.detach()
        if tensor.is_mkldnn:
            return _Opaque(self.numbers[key])
        place = (tensor.dtype, tensor.size(), tensor.stride(), int(tensor.storage_offset()))
        return _Inside(self.numbers[key], *place, tensor.is_conj(), tensor.is_neg())

    def _new(self, leaves: list[Any]) -> Iterator[tuple[int, int]]:
        for place, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor) or (key := _key(leaf)) in self.numbers or key in self.outside:
                continue
            self.numbers[key] = len(self.numbers)
            self.held.append(leaf)
            yield place, self.numbers[key]

    def _keep(self, tensor: Tensor) -> None:
        """The bytes that an operation is about to change, if they lie outside and are not kept yet."""
        if _key(tensor) in self.numbers or any(_key(kept) == _key(tensor) for kept, _ in self.before):
            return
        flat = torch.empty(0, dtype=torch.uint8, device=tensor.device)
        flat.set_(tensor.untyped_storage())
        self.before.append((flat, flat.clone()))

    def undo(self) -> None:
        for now, then in self.before:
            now.copy_(then)
        self.before.clear()


def _name(generator: Any) -> int:
    return int(generator._cdata)  # noqa: SLF001 - an operator is handed another object for the same generator


def _key(tensor: Tensor) -> int:
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage()._cdata  # noqa: SLF001 - its only identity


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """What an operator changes, lists of tensors included."""
    schema = func._schema  # noqa: SLF001 - the only place where an operator says what it does
    named = dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
    says = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    for name in (*says, *UNDECLARED.get(schema.name, ())):
        yield from (one for one in tree_leaves(named.get(name)) if isinstance(one, Tensor))

"""What torch's dispatcher is asked to do: calls that compute, their FLOPs, and the bytes they read and write."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 - torch documents it, and has no other door
from torch.utils._pytree import tree_leaves  # noqa: PLC2701 - torch's own, and it has no other door
from torch.utils.flop_counter import flop_registry

# Aten calls that give a view of their input although their schema does not say so.
UNDECLARED_VIEWS = frozenset({"aten::_unsafe_view"})
# Aten calls that are declared to write and touch no number, beside those that torch tags `inplace_view`.
RELABEL = frozenset({"aten::requires_grad_", "aten::record_stream"})
# Calls that give no tensor and still read numbers, on a GPU by waiting for them.
READS = frozenset({"aten::_local_scalar_dense", "aten::equal"})
OUTSIDE = frozenset({"prim", "profiler"})  # namespaces of torch's own book-keeping


class Calls(TorchDispatchMode):
    """Counts calls of aten operators as torch's dispatcher sees them below autograd: `computing` and `other`.

    One call counts one, whatever it holds: `_foreach_mul_` over 100 tensors is one, in place or not. Forward, backward
    (also the engine's own sums of gradients) and optimiser count alike, and so does what our own autograd functions do.
    Compound operators count as what they are made of (`linear` is `t` and `addmm`). Not computing, and counted in
    `other`, is: a call whose result is declared an alias of an input that it does not write (every view, `detach`,
    `unbind`, `split`), `_unsafe_view`, a change of shape or storage alone (`unsqueeze_`, `set_`, `resize_`), and a
    question whose answer holds no tensor (`sym_size`), except `_local_scalar_dense` and `equal`, which read numbers.
    Allocations (`empty`) count. An operator of another namespace, ours, counts as the aten calls of its body, and as
    one where it makes none, for then it is a kernel of its own, or where torch's FLOP counter knows it: a product of
    another library is one call, as aten's are.

    >>> x = torch.ones(3, requires_grad=True)
    >>> with Calls() as calls:
    ...     y = (x * 2).view(3, 1)
    ...     _ = torch.autograd.grad(y, x, torch.ones(3, 1))
    >>> calls.computing, calls.other  # mul, ones, mul of the backward pass; view, and the view's backward
    (3, 2)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_name: Counter[str] = Counter()
        self.other = 0
        self.bytes = 0  # what the calls that compute read and write, each tensor once a call
        self.flops = 0  # 2 for a multiply-add in what torch's registry knows: products, convolutions, attention

    @property
    def computing(self) -> int:
        """All that compute."""
        return sum(self.by_name.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace != "aten" and func._overloadpacket in flop_registry:  # noqa: SLF001 - a product, opened or not
            self._note(func, args, kwargs, out := func(*args, **kwargs))
            return out
        if func.namespace != "aten":
            return func(*args, **kwargs) if func.namespace in OUTSIDE else self._open(func, args, kwargs)
        if not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _key(args, kwargs).name):  # noqa: SLF001
            with self:  # in inference mode compound operators arrive whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if computes(func):
            self._note(func, args, kwargs, out)
        else:
            self.other += 1
        return out

    def _note(self, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> None:
        self.by_name[func._schema.name] += 1  # noqa: SLF001 - the only place where an operator says what it does
        self.bytes += sum(held(tensor) for tensor in set(tensors([*args, *kwargs.values(), out])))
        if (rule := flop_registry.get(func._overloadpacket)) is not None:  # noqa: SLF001 - the key of torch's own registry
            self.product(func, args, kwargs, rule(*args, **kwargs, out_val=out))

    def product(self, func: Any, args: Any, kwargs: Mapping[str, Any], flops: int) -> None:
        """One of those that cost FLOPs."""
        self.flops += flops

    def _open(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator that is not aten's, counting inside: its kernel is called past the modes, under this one."""
        before = self.computing
        with self:
            out = func.redispatch(torch._C.DispatchKeySet(_key(args, kwargs)), *args, **kwargs)  # noqa: SLF001
        if self.computing == before:
            self.by_name[func._schema.name] += 1  # noqa: SLF001
        return out


def tensors(values: Any) -> list[Tensor]:
    """The tensors among these, and in lists of them."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def held(tensor: Tensor) -> int:
    """Bytes of the numbers that a tensor holds; one that is expanded holds each but once.

    >>> held(torch.zeros(2, 3)), held(torch.zeros(1, 3).expand(5, 3))
    (24, 12)
    """
    if tensor.is_mkldnn:  # packed for a product, without strides
        return tensor.numel() * tensor.element_size()
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size() if tensor.numel() else 0


def computes(func: Any) -> bool:
    """Whether an aten operator makes or changes numbers, by its schema: the rule of `Calls`.

    >>> aten = torch.ops.aten
    >>> [computes(f) for f in (aten.mul.Tensor, aten.mul_.Tensor, aten._foreach_mul_.Scalar, aten.clone.default)]
    [True, True, True, True]
    >>> [computes(f) for f in (aten.view.default, aten.unbind.int, aten.detach.default, aten.sym_size.int)]
    [False, False, False, False]
    """
    schema = func._schema  # noqa: SLF001
    if schema.name in READS:
        return True
    if schema.name in UNDECLARED_VIEWS | RELABEL or torch.Tag.inplace_view in func.tags:
        return False
    writes = any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)
    if writes:
        return True
    gives = [r for r in schema.returns if "Tensor" in str(r.type)]
    return bool(gives) and all(r.alias_info is None for r in gives)


def _key(args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Whose kernel a call will run."""
    keys = torch._C.DispatchKey  # noqa: SLF001
    return keys.CUDA if any(tensor.is_cuda for tensor in tensors([*args, *kwargs.values()])) else keys.CPU


@contextmanager
def eager() -> Iterator[None]:
    """What is compiled runs uncompiled inside."""
    compiled = "torch._dynamo" in sys.modules  # else nothing is, and importing it takes seconds
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with stance:
        yield


def count(run: Callable[[], object]) -> Calls:
    """The calls of running it once, uncompiled. FlopCounterMode is not asked: it stumbles over modules without gradient."""
    with eager(), Calls() as calls:
        run()
    return calls

"""A function of tensors, called again and again with the same shapes -> recorded once as a graph, then replayed.

On a GPU an update is thousands of small kernels, and starting them one by one takes longer than running them. A CUDA
graph starts them all at once. What is recorded must read nothing on the host, keep its state in place, in tensors, and
draw from registered generators alone; an agent's `update` and `choose` do.

A recording is used only after it has been seen to do what the plain function does, from the same state, on the same
input. Where that fails, or nothing can be recorded, the plain function goes on, and one sentence says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten  # noqa: PLC2701 - torch's own, and it has no other door

WARMUP = 3  # plain calls with the same shapes before a recording: libraries settle on their algorithms
NEAR = 0.05  # by how much of its mean size a recording's result may differ in the mean: sums are not in a fixed order
MOVED = 0.25  # the same for what it changes of the state, in all
LEAST = 1e-3  # means below it are rounding


class Recorder(Protocol):
    """What records: `CudaGraphs`, or a stand-in where there is no GPU."""

    def warm(self, call: Callable[[], Any]) -> Any:
        """Make the call, in the place where it will be recorded; what it gives."""

    def record(self, call: Callable[[], Any], generators: Sequence[torch.Generator]) -> tuple[Any, Callable[[], None]]:
        """Record the call without computing anything: what it will give, and what computes it into the same tensors.

        Raises RuntimeError where the call does what no graph can hold; the generators are then as before.
        """


class CudaGraphs:
    """CUDA graphs, recorded on one stream beside the main one."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def warm(self, call: Callable[[], Any]) -> Any:
        main = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(main)
        with torch.cuda.stream(self.stream):
            given = call()
        main.wait_stream(self.stream)
        return given

    def record(self, call: Callable[[], Any], generators: Sequence[torch.Generator]) -> tuple[Any, Callable[[], None]]:
        graph, before = torch.cuda.CUDAGraph(), [one.clone_state() for one in generators]
        for one in generators:
            graph.register_generator_state(one)
        try:
            # other threads, that of nccl for one, may ask the device things meanwhile
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                given = call()
        except BaseException:
            for one, was in zip(generators, before, strict=True):
                one.graphsafe_set_state(was)  # a generator in an unfinished recording cannot draw
            raise
        return given, graph.replay


@dataclass(frozen=True)
class _Recorded:
    """One recording, and the tensors that it reads and writes."""

    signature: Any
    fixed: list[Any]  # inputs
    given: list[Any]  # outputs, the numbers among them packed
    spec: Any  # of the outputs
    replay: Callable[[], None]
    generators: Sequence[torch.Generator]  # held, so that their ids are given to no others

    def __call__(self, leaves: list[Any]) -> Any:
        """Compute on these inputs. The result is the caller's; the next call leaves it alone."""
        for fixed, leaf in zip(self.fixed, leaves, strict=True):
            if isinstance(fixed, Tensor):
                fixed.copy_(leaf, non_blocking=True)
        self.replay()
        return tree_unflatten(_unpack([_copy(leaf) for leaf in self.given]), self.spec)


class Captured:
    """Calls `call`, from the fourth time on with the same shapes as a recording of it.

    state: what the call changes in place, beside what it gives; generators: what it draws from, both asked for when a
    recording is made. A call with other shapes, or that draws from another generator, is plain; the fourth of them in a
    row is recorded instead. say: told once, in a sentence that begins with `name`, where nothing is recorded any more;
    `otherwise` is then called. Every call computes exactly once, whether plain, recorded or compared.

    >>> from wm_core.testing import Remembered
    >>> double = Captured(lambda x: 2 * x, Remembered())
    >>> [double(torch.tensor(float(i))).item() for i in range(6)], double.recorded is not None
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], True)
    """

    def __init__(
        self,
        call: Callable[..., Any],
        recorder: Recorder,
        *,
        state: Callable[[], Iterable[Tensor]] = tuple,
        generators: Callable[[], Sequence[torch.Generator]] = tuple,
        name: str = "the call",
        say: Callable[[str], None] = print,
        otherwise: Callable[[], None] = lambda: None,
    ) -> None:
        self.call, self.recorder, self.state, self.generators = call, recorder, state, generators
        self.name, self.say, self.otherwise = name, say, otherwise
        self.recorded: _Recorded | None = None
        self.plain = False  # for ever
        self._seen: Any = None  # signature of the last plain call
        self._times = 0  # in a row

    def __call__(self, *inputs: Any) -> Any:
        """What `call(*inputs)` gives: nested tensors, of the same shapes whenever the inputs have the same."""
        if self.plain:
            return self.call(*inputs)
        leaves, spec = tree_flatten(inputs)
        generators = self.generators()
        signature = (spec, tuple(map(_described, leaves)), tuple(map(id, generators)))
        if self.recorded is not None and self.recorded.signature == signature:
            self._times = 0
            return self.recorded(leaves)
        self._times = self._times + 1 if self._seen == signature else 1
        self._seen = signature
        if self._times <= WARMUP:
            return self._warm(inputs)
        return self._record(inputs, leaves, signature, generators)

    def _warm(self, inputs: Any) -> Any:
        begun = False

        def call() -> Any:
            nonlocal begun
            begun = True
            return self.call(*inputs)

        try:
            return self.recorder.warm(call)
        except RuntimeError as error:
            if begun:  # half an update may have been made
                raise
            self._give_up(f"cannot be made ready for recording ({_reason(error)})")
            return self.call(*inputs)

    def _record(self, inputs: Any, leaves: list[Any], signature: Any, generators: Sequence[torch.Generator]) -> Any:
        """The plain call, then the same from the same state by a recording of it: which of the two is kept."""
        self.recorded = None  # its memory is needed
        before = self._kept(generators)
        expected = self._warm(inputs)
        if self.plain:
            return expected
        after = self._kept(generators)
        self._put(before, generators)
        fixed = [_copy(leaf) for leaf in leaves]
        specs: list[Any] = []

        def call() -> list[Any]:
            given, spec = tree_flatten(self.call(*tree_unflatten(fixed, signature[0])))
            specs.append(spec)
            return _pack(given)

        try:
            given, replay = self.recorder.record(call, generators)
            recorded = _Recorded(signature, fixed, given, specs[-1], replay, generators)
            found = recorded(leaves)
        except RuntimeError as error:
            self._put(after, generators)
            self._give_up(f"cannot be recorded as one graph ({_reason(error)})")
            return expected
        if not (_near(found, expected) and _moved_alike(list(self.state()), before[0], after[0])):
            self._put(after, generators)
            self._give_up("does something else when recorded as one graph")
            return expected
        self.recorded = recorded
        return found

    def _kept(self, generators: Sequence[torch.Generator]) -> tuple[list[Tensor], list[Tensor]]:
        return [one.detach().clone() for one in self.state()], [one.get_state() for one in generators]

    @torch.no_grad()
    def _put(self, kept: tuple[list[Tensor], list[Tensor]], generators: Sequence[torch.Generator]) -> None:
        for one, was in zip(self.state(), kept[0], strict=True):
            one.copy_(was)
        for generator, state in zip(generators, kept[1], strict=True):
            generator.set_state(state)

    def _give_up(self, why: str) -> None:
        self.plain, self.recorded = True, None
        self.say(f"{self.name} {why}; it goes on without")
        self.otherwise()


def compile_parts(parts: Iterable[nn.Module], backend: str = "inductor") -> None:
    """Have torch compile the forward pass of each, when it is first called; names of weights stay, and what torch cannot
    compile stays as it is. With torch's own backend that takes minutes.
    """
    import torch._dynamo  # slow to import, and not needed elsewhere

    torch._dynamo.config.suppress_errors = True  # noqa: SLF001 - documented by that name
    for part in parts:
        part.compile(dynamic=False, backend=backend)


def _described(leaf: Any) -> Any:
    """What must be the same for a recording to serve."""
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _pack(leaves: list[Any]) -> list[Any]:
    """The 0-d float32 tensors as one at the front, so that it takes one copy to keep them."""
    numbers = [i for i, leaf in enumerate(leaves) if _is_number(leaf)]
    packed = torch.stack([leaves[i].detach() for i in numbers]) if numbers else None
    return [packed, tuple(numbers), *(leaf for i, leaf in enumerate(leaves) if i not in set(numbers))]


def _unpack(packed: list[Any]) -> list[Any]:
    values, numbers, *leaves = packed
    for i, value in zip(numbers, () if values is None else values.unbind(), strict=True):
        leaves.insert(i, value)  # in rising order, so that each finds its place
    return leaves


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() == 0 and leaf.dtype == torch.float32


def _near(found: Any, expected: Any) -> bool:
    """Whether two results of the same structure are the same up to the order of sums, in the mean of each tensor."""
    ours, theirs = tree_flatten(found)[0], tree_flatten(expected)[0]
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if isinstance(b, Tensor) and b.numel()]
    if any(a.shape != b.shape for a, b in pairs):
        return False
    checks = []
    for a, b in pairs:
        one, other = a.detach().double(), b.detach().double()
        odd = (one.isfinite() != other.isfinite()).any()
        one, other = one.nan_to_num(0, 0, 0), other.nan_to_num(0, 0, 0)
        checks.append(~odd & ((one - other).abs().mean() <= NEAR * other.abs().mean() + LEAST))
    return all(bool(check) for check in checks)


def _moved_alike(now: list[Tensor], before: list[Tensor], after: list[Tensor]) -> bool:
    """Whether the state went from `before` to `now` as it goes to `after`: counters exactly, numbers in all."""
    off, way = 0.0, 0.0
    for here, start, there in zip(now, before, after, strict=True):
        if not here.is_floating_point():
            if not torch.equal(here, there):
                return False
            continue
        off += float((here.detach() - there).double().abs().sum())
        way += float((there - start).double().abs().sum())
    return off <= MOVED * way  # false for nan


def _reason(error: Exception) -> str:
    """The first line of what went wrong."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

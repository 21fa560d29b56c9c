"""A function of tensors, called again and again with the same shapes -> recorded once as a graph, then replayed.

On a GPU an update is thousands of small kernels, and starting them one by one takes longer than running them. A CUDA
graph starts them all at once. What is recorded must read nothing on the host, keep its state in place, in tensors, and
draw from registered generators alone; an agent's `update` and `choose` do.

A recording is used only after it has been seen to do what the plain function does, from the same state, on the same
input. One such call says nothing of what changes from call to call on the host, a schedule that Python counts: it would
stand still for ever. So the next two calls are compared too, and then one at ten times the distance, again and again.
Where that fails, or nothing can be recorded, the plain function goes on, and one sentence says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten  # noqa: PLC2701 - torch's own, and it has no other door

from wm_core.fast.agreement import Outcome, difference

WARMUP = 3  # plain calls with the same shapes before a recording: libraries settle on their algorithms
TRIES = 2  # comparisons of one call, where a recording is not quite like itself either


class Recorder(Protocol):
    """What records: `CudaGraphs`, or a stand-in where there is no GPU."""

    def warm(self, call: Callable[[], Any]) -> Any:
        """Make the call, in the place where it will be recorded; what it gives."""

    def record(self, call: Callable[[], Any], generators: Sequence[torch.Generator]) -> tuple[Any, Callable[[], None]]:
        """Record the call without computing anything: what it will give, and what computes it into the same tensors.

        Raises RuntimeError where the call does what no graph can hold; the generators are then as before.
        """


class CudaGraphs:
    """A `Recorder` of CUDA graphs, recorded on one stream beside the main one."""

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
        main = torch.cuda.current_stream(self.stream.device)
        for one in generators:
            graph.register_generator_state(one)
        try:
            # other threads, that of nccl for one, may ask the device things meanwhile
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                given = call()
        except BaseException:
            torch.cuda.set_stream(main)  # a recording that fails may leave its own stream behind as the current one
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
    `otherwise` is then called. Whether plain, recorded or compared, every call leaves the state one step further.

    >>> from wm_core.dispatched import Dispatched
    >>> double = Captured(lambda x: 2 * x, Dispatched())
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
        self.comparing = True
        self._seen: Any = None  # signature of the last plain call
        self._times = 0  # in a row
        self._calls = 0  # of the recording

    def __call__(self, *inputs: Any) -> Any:
        """What `call(*inputs)` gives: nested tensors, of the same shapes whenever the inputs have the same."""
        if self.plain:
            return self.call(*inputs)
        leaves, spec = tree_flatten(inputs)
        generators = self.generators()
        signature = (spec, tuple(map(_described, leaves)), tuple(map(id, generators)))
        if self.recorded is not None and self.recorded.signature == signature:
            self._times = 0
            self._calls += 1
            if self.comparing and due(self._calls):
                return self._compared(self.recorded, inputs, leaves, generators)
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
        """A recording, compared at once."""
        self.recorded, self._calls = None, 0  # its memory is needed

        def recorded(leaves: list[Any]) -> Any:
            fixed = [_copy(leaf) for leaf in leaves]
            specs: list[Any] = []

            def call() -> list[Any]:
                given, spec = tree_flatten(self.call(*tree_unflatten(fixed, signature[0])))
                specs.append(spec)
                return _pack(given)

            given, replay = self.recorder.record(call, generators)
            self.recorded = _Recorded(signature, fixed, given, specs[-1], replay, generators)
            return self.recorded(leaves)

        return self._compared(recorded, inputs, leaves, generators)

    def _compared(
        self,
        recorded: Callable[[list[Any]], Any],
        inputs: Any,
        leaves: list[Any],
        generators: Sequence[torch.Generator],
    ) -> Any:
        """The plain call, then the same from the same state as recorded: which of the two is kept.

        A recording that differs by more than rounding is replayed once more: it may differ from the plain call by as
        much as from itself, for sums on a GPU come in no fixed order. What depends on the host has no part in that.
        """
        before = self._kept(generators)
        for _ in range(TRIES):
            try:
                given = self._warm(inputs)
                if self.plain:
                    return given
                after = self._kept(generators)
            except torch.OutOfMemoryError:
                if self.recorded is None:
                    raise
                self._put(before, generators)
                self.comparing = False
                self.say(f"{self.name} is not compared with its recording any more: memory does not hold both")
                return self.recorded(leaves)
            try:
                self._put(before, generators)
                found = recorded(leaves)
                replayed = self.recorded
                assert replayed is not None
                recorded = replayed
                expected = Outcome(given, before[0], after[0])
                if difference(expected, Outcome(found, before[0], [*self.state()])) is None:
                    return found
                once = Outcome(found, before[0], self._kept(())[0])
                self._put(before, generators)
                found = replayed(leaves)
                again = Outcome(found, before[0], [*self.state()])
            except RuntimeError as error:
                self._put(after, generators)
                self._give_up(f"cannot be recorded as one graph ({_reason(error)})")
                return given
            why = difference(expected, once, again)
            if why is None:
                return found
            if difference(once, again, rounding=False) is None:
                break  # always the same: no chance has a part in it
            self._put(before, generators)
        self._put(after, generators)
        self._give_up(f"does something else when recorded as one graph: {why}")
        return given

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


def due(calls: int) -> bool:
    """Whether a recording is compared again at its so manieth call after the first.

    >>> [calls for calls in range(1, 2000) if due(calls)]
    [1, 2, 10, 100, 1000]
    """
    return calls == 2 or str(calls).strip("0") == "1"


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


def _reason(error: Exception) -> str:
    """The first line of what went wrong."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

"""What one update of an app costs, or one act: seconds, memory, FLOPs and calls into torch, as one JSON object.

bench.py update --app dreamer --preset atari100k --size 12m --batch 4 --length 64 --json
bench.py update --app po_dreamer --preset tiny              a table for people
bench.py act --app dreamer --preset atari100k --size 12m    one acting step, of 1 and of 16 environments

--app --json --repeat --warmup are the tool's own; every other option is one of the app's `info`: --preset, --size,
--ablation and any field of its config (--device, --precision, --threads, --task, ...). --threads is 1 unless named, for
cpu_s counts what idle threads spin. No environment is played: frames and actions are random, the notes of the dynamics
come from acting on such frames, and a real replay in memory makes the batch exactly as the app's `learn` asks for it.

The numbers:
cpu_s, wall_s  medians over --repeat updates after warm-up, `update` alone (no sampling, no writing back); user and
               system time of all threads of the process.
peak_mb        peak resident memory of the process until then, torch and all, in 10^6 bytes. peak_gpu_mb on a GPU.
flops          of one whole update, forward and backward, by torch's FlopCounterMode: 2 for a multiply-add in products,
               convolutions and attention, nothing for the rest.
aten_calls     dispatcher calls of one whole eager update that compute something: see `Calls` for the exact rule.
aten_views     the other dispatcher calls: views and metadata.
parameters     trainable, all parts together, without the slow critic.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import platform
import re
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 - torch documents it, and has no other door
from torch.utils.flop_counter import FlopCounterMode
from wm_core.replay import Replay
from wm_core.run import cli, loading
from wm_core.run.folder import describe_environment
from wm_core.types import Batch

# Aten calls that give a view of their input although their schema does not say so.
UNDECLARED_VIEWS = frozenset({"aten::_unsafe_view"})
# Aten calls that are declared to write and touch no number, beside those that torch tags `inplace_view`.
RELABEL = frozenset({"aten::requires_grad_", "aten::record_stream"})
# Calls that give no tensor and still read numbers, on a GPU by waiting for them.
READS = frozenset({"aten::_local_scalar_dense", "aten::equal"})
OUTSIDE = frozenset({"prim", "profiler"})  # namespaces of torch's own book-keeping
ENVS = (1, 16)


class Calls(TorchDispatchMode):
    """Counts calls of aten operators as torch's dispatcher sees them below autograd: `computing` and `other`.

    One call counts one, whatever it holds: `_foreach_mul_` over 100 tensors is one, in place or not. Forward, backward
    (also the engine's own sums of gradients) and optimiser count alike, and so does what our own autograd functions do.
    Compound operators count as what they are made of (`linear` is `t` and `addmm`). Not computing, and counted in
    `other`, is: a call whose result is declared an alias of an input that it does not write (every view, `detach`,
    `unbind`, `split`), `_unsafe_view`, a change of shape or storage alone (`unsqueeze_`, `set_`, `resize_`), and a
    question whose answer holds no tensor (`sym_size`), except `_local_scalar_dense` and `equal`, which read numbers.
    Allocations (`empty`) count. An operator of another namespace, ours, counts as the aten calls of its body, and as
    one where it makes none, for then it is a kernel of its own.

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

    @property
    def computing(self) -> int:
        """All that compute."""
        return sum(self.by_name.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace != "aten":
            return func(*args, **kwargs) if func.namespace in OUTSIDE else self._open(func, args, kwargs)
        if not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _key(args, kwargs).name):  # noqa: SLF001
            with self:  # in inference mode compound operators arrive whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        if computes(func):
            self.by_name[func._schema.name] += 1  # noqa: SLF001 - the only place where an operator says what it does
        else:
            self.other += 1
        return func(*args, **kwargs)

    def _open(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator that is not aten's, counting inside: its kernel is called past the modes, under this one."""
        before = self.computing
        with self:
            out = func.redispatch(torch._C.DispatchKeySet(_key(args, kwargs)), *args, **kwargs)  # noqa: SLF001
        if self.computing == before:
            self.by_name[func._schema.name] += 1  # noqa: SLF001
        return out


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
    return keys.CUDA if _on_gpu([*args, *kwargs.values()]) else keys.CPU


def _on_gpu(values: Any) -> bool:
    """Whether a tensor among these, or in lists of them, lies on a GPU."""
    if isinstance(values, Tensor):
        return values.is_cuda
    return isinstance(values, (list, tuple)) and any(_on_gpu(value) for value in values)


class Whole:
    """Stands for FlopCounterMode's module tracker, which stumbles over modules that run without gradient."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


@contextmanager
def eager() -> Iterator[None]:
    """What is compiled runs uncompiled inside."""
    compiled = "torch._dynamo" in sys.modules  # else nothing is, and importing it takes seconds
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with stance:
        yield


def count(run: Callable[[], object]) -> tuple[Calls, int]:
    """The calls and the FLOPs of running it once, uncompiled."""
    flops = FlopCounterMode(display=False)
    flops.mod_tracker = Whole()  # type: ignore[assignment]
    with eager(), flops, Calls() as calls:
        run()
    return calls, flops.get_total_flops()


class Seconds(NamedTuple):
    """Medians."""

    cpu_s: float
    wall_s: float


def clock(run: Callable[[], object], *, warmup: int, repeat: int, device: torch.device) -> Seconds:
    """Median CPU and wall seconds of running it."""
    cpu, wall = [], []
    for i in range(warmup + repeat):
        _wait(device)
        begin = time.process_time(), time.perf_counter()
        run()
        _wait(device)
        if i >= warmup:
            cpu.append(time.process_time() - begin[0])
            wall.append(time.perf_counter() - begin[1])
    return Seconds(statistics.median(cpu), statistics.median(wall))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mb() -> float:
    """Peak resident memory of this process in 10^6 bytes.

    Linux hands the peak of whoever started a process on to it in getrusage, so its own status is read first.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


# ---- an app without its environment


class Case(NamedTuple):
    """An app at one config, and what its environments would show."""

    config: Any
    agent: Any
    spaces: Mapping[str, Any]
    dtypes: Mapping[str, Any]
    action: Any  # an ActionSpec


def prepare(app: str, options: list[str]) -> Case:
    """The agent of an app's options. The environment is asked for its spaces alone. Raises UserError."""
    found = importlib.import_module(f"{app}.cli").APP
    threads = [] if any(option.partition("=")[0] == "--threads" for option in options) else ["--threads", "1"]
    config = loading.runtime(cli.parse(found, ["info", *options, *threads]).config)
    with closing(loading.environments(found, dataclasses.replace(config, workers=0), 1)) as envs:
        dtypes = {key: value.dtype for key, value in envs.reset(config.seed).items()}
        spaces = envs.observation_space.spaces
        return Case(config, loading.build(found, config, envs), spaces, dtypes, envs.action_spec)


def records(case: Case, n: int, seed: int = 0) -> Iterator[dict[str, NDArray[Any]]]:
    """Random steps of n environments, without end: every value (n, ...). About one episode in 100 steps."""
    rng = np.random.default_rng(seed)
    for space in case.spaces.values():
        space.seed(seed)
    first = np.ones(n, np.bool_)
    while True:
        last = rng.random(n) < 0.01
        step = {key: np.stack([space.sample() for _ in range(n)]) for key, space in case.spaces.items()}
        step |= {
            "action": _actions(case.action, n, rng) * ~first[:, None],
            "reward": rng.standard_normal(n) * ~first,
            "first": first,
            "last": last & ~first,
            "terminal": last & ~first & (rng.random(n) < 0.5),
        }
        yield {key: value.astype(case.dtypes[key]) for key, value in step.items()}
        first = step["last"]


def _actions(spec: Any, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random action vectors (n, A): a one-hot for each discrete component, then numbers in [-1, 1]."""
    parts = [np.eye(size, dtype=np.float32)[rng.integers(size, size=n)] for size in spec.discrete]
    return np.concatenate([*parts, rng.uniform(-1, 1, (n, spec.continuous)).astype(np.float32)], 1)


def fill(case: Case, streams: int = 2) -> Replay:
    """A replay in memory whose streams are longer than the past of a row and two rows."""
    agent, length = case.agent, case.config.length
    past = max(agent.stores.values(), default=0)
    steps, source = past + 2 * length, records(case, streams)
    replay = Replay(
        None,
        streams,
        stores=agent.stores,
        limit_bytes=2**40,
        chunk=steps,
        length=length,
        online=False,
    )
    carry, notes = agent.initial(streams), []
    for t, step in zip(range(steps), source, strict=False):
        if t < 4:  # acting on every one of them would take longer than what is to be measured
            carry, _, noted = agent.act(carry, step)
            notes.append(noted)
        replay.add({**step, **notes[t % 4]})
    return replay


def batch_of(case: Case) -> Batch:
    """The batch that the app's own `learn` hands to its `update`. One update is made of it."""
    agent, seen = case.agent, []
    update = agent.update

    def watch(batch: Batch) -> Any:
        seen.append(batch)
        return update(batch)

    agent.update = watch
    try:
        agent.learn(fill(case))
    finally:
        del agent.update
    return seen[0]


# ---- the two commands


def update(case: Case, *, warmup: int, repeat: int) -> tuple[dict[str, Any], Calls]:
    """The numbers of one update."""
    batch, agent = batch_of(case), case.agent
    seconds = clock(lambda: agent.update(batch), warmup=warmup, repeat=repeat, device=agent.device)
    memory = {"peak_mb": peak_mb()}
    if agent.device.type == "cuda":
        memory["peak_gpu_mb"] = torch.cuda.max_memory_allocated(agent.device) / 1e6
    calls, flops = count(lambda: agent.update(batch))
    numbers = {"flops": flops, "aten_calls": calls.computing, "aten_views": calls.other}
    return seconds._asdict() | memory | numbers, calls


def act(case: Case, *, warmup: int, repeat: int) -> tuple[dict[str, Any], Calls]:
    """The numbers of one acting step by the number of environments, and the calls of the last of them."""
    agent, found = case.agent, {}
    for n in ENVS:
        source, calls = records(case, n), Calls()
        carry = agent.initial(n)
        for _ in range(2):
            carry = agent.act(carry, next(source))[0]
        step = next(source)
        seconds = clock(lambda: agent.act(carry, step), warmup=warmup, repeat=repeat, device=agent.device)  # noqa: B023
        calls, flops = count(lambda: agent.act(carry, step))  # noqa: B023
        found[str(n)] = seconds._asdict() | {"flops": flops, "aten_calls": calls.computing, "aten_views": calls.other}
    return {"envs": found, "peak_mb": peak_mb()}, calls


def measure(command: str, app: str, options: list[str], *, warmup: int, repeat: int) -> tuple[dict[str, Any], Calls]:
    """Everything that --json prints, and the calls by name."""
    case = prepare(app, options)
    numbers, calls = {"update": update, "act": act}[command](case, warmup=warmup, repeat=repeat)
    here = describe_environment()
    about = {
        "parameters": case.agent.parameters_by_module()["total"],
        "device": str(case.agent.device),
        "precision": case.agent.precision,
        "threads": torch.get_num_threads(),
        "warmup": warmup,
        "repeat": repeat,
        "torch": torch.__version__,
        "python": here["python"],
        "platform": platform.platform(),
        "hardware": here["hardware"],
        "commit": here["commit"],
        "config": dataclasses.asdict(case.config),
    }
    return {"command": command, "app": app, "task": case.config.task, **numbers, **about}, calls


def table(result: Mapping[str, Any], calls: Calls) -> str:
    """The result for people."""
    config = result["config"]
    size = f"batch {config['batch']} x {config['length']}, " if result["command"] == "update" else ""
    lines = [f"{result['app']} {result['command']} on {result['task']}: {size}{result['parameters']:,} parameters"]
    lines.append(
        f"{result['device']}, {result['precision']}, {result['threads']} threads, torch {result['torch']}, "
        f"median of {result['repeat']} after {result['warmup']} warm-up"
    )
    rows = {"": result} if result["command"] == "update" else result["envs"]
    lines += ["", f"{'envs':>4} {'cpu s':>10} {'wall s':>10} {'GFLOP':>10} {'aten calls':>11} {'views':>8}"]
    for name, row in rows.items():
        lines.append(
            f"{name:>4} {row['cpu_s']:>10.4f} {row['wall_s']:>10.4f} {row['flops'] / 1e9:>10.3f} "
            f"{row['aten_calls']:>11,} {row['aten_views']:>8,}"
        )
    gpu = f", {result['peak_gpu_mb']:,.0f} MB on the GPU" if "peak_gpu_mb" in result else ""
    lines += ["", f"peak memory {result['peak_mb']:,.0f} MB{gpu}", "", "most frequent calls:"]
    width = max((math.floor(math.log10(n)) + 1 for n in calls.by_name.values()), default=1)
    lines += [f"  {n:>{width}} {name.removeprefix('aten::')}" for name, n in calls.by_name.most_common(12)]
    return "\n".join(lines)


def main() -> None:
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    ap.add_argument("command", choices=("update", "act"))
    ap.add_argument("--app", default="dreamer", help="dreamer, po_dreamer, ...: its module")
    ap.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    ap.add_argument("--repeat", type=int, metavar="N", help="measured runs (default 3 for update, 20 for act)")
    ap.add_argument("--warmup", type=int, metavar="N", default=1, help="runs before them, beside the first (default 1)")
    args, options = ap.parse_known_args()
    repeat = {"update": 3, "act": 20}[args.command] if args.repeat is None else args.repeat
    if repeat < 1 or args.warmup < 0:
        ap.error("--repeat must be at least 1 and --warmup at least 0")
    if importlib.util.find_spec(args.app) is None:
        ap.error(f"there is no app {args.app!r}: name its module, for example dreamer or po_dreamer")
    try:
        result, calls = measure(args.command, args.app, options, warmup=args.warmup, repeat=repeat)
    except ValueError as error:  # UserError and TaskError are such, and say what to do in one sentence
        if not (getattr(error, "user_error", False) or type(error).__name__ == "TaskError"):
            raise
        ap.error(str(error))
    print(json.dumps(result) if args.json else table(result, calls))


if __name__ == "__main__":
    main()

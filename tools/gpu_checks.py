"""Does the card do what a CPU does? Each check gives a sentence of what was seen, or raises `Failed` or `Left`."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradients
import torch
from bench import cases
from gpu_place import Failed, Left, Place
from torch import Tensor
from wm_core import draws
from wm_core.fast.agreement import Outcome, difference
from wm_run import checkpoint
from wm_run.rollout import drawing_from

UPDATES, FEW = 20, 8  # updates of a comparison, an evaluation in their middle; so few in a rehearsal
TOOLS = Path(__file__).resolve().parent
NEEDED = ("gymnasium", "safetensors", "tyro", "rich", "numpy", "einops", "PIL")


def environment(place: Place) -> str:
    """Versions, and what is missing."""
    version = tuple(map(int, torch.__version__.split("+")[0].split(".")[:2]))
    if version < (2, 11):
        raise Failed(f"torch {torch.__version__} is older than 2.11")
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise Failed(f"{', '.join(missing)} cannot be imported: install them, no network is needed afterwards")
    triton = "with" if importlib.util.find_spec("triton") else "without"
    card = "no card" if place.rehearsal else f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"Python {platform.python_version()}, torch {torch.__version__} {triton} Triton, {card}"


PIXELS = ("--task", "toy:catch")
GRAPHED: dict[str, tuple[str, ...]] = {
    "dmawm": ("--task", "toy:leavers"),
    "mappo": ("--task", "toy:whisper", "--actor", "gru", "--backward", "4"),
}


def graph(place: Place, app: str) -> str:
    """Updates and acts as one graph each against plain ones, with an evaluation in the middle."""
    place.as_on_a_gpu()
    updates, precision = (FEW, "fp32") if place.rehearsal else (UPDATES, "bf16")

    def run(recorded: bool) -> tuple[Outcome, list[str], bool]:
        options = [
            "--preset",
            "tiny",
            *GRAPHED.get(app, PIXELS),
            "--device",
            place.device.type,
            "--precision",
            precision,
        ]
        case = cases.prepare(app, options)
        agent, said, given = case.agent, list[str](), list[Any]()
        torch.manual_seed(0)
        replay = cases.fill(case)
        if recorded:
            agent.capture("graph", said.append, place.recorder())
            agent._choosing.otherwise = agent._updating.otherwise = lambda: None  # noqa: SLF001 - compiling takes minutes
        before = [one.detach().clone() for one in agent.changing()]
        source, carry = cases.records(case, 2, seed=1), agent.initial(2)
        for i in range(updates):
            carry, action, notes = agent.act(carry, next(source))
            given.append((torch.from_numpy(action), notes, agent.learn(replay)))
            if i == updates // 2:
                given.append(evaluated(case))
        after = [one.detach().clone() for one in agent.changing()]
        used = recorded and agent._updating.recorded is not None  # noqa: SLF001
        return Outcome(given, before, after), said, used

    recorded, said, used = run(True)
    if said or not used:
        raise Failed("; ".join(said) or "no update was ever recorded")
    plain = run(False)[0]
    if difference(recorded, plain, rounding=False) is None:
        return f"{updates} updates and acts: equal bit for bit"
    again = run(False)[0]
    if (why := difference(recorded, plain, again)) is not None:
        raise Failed(f"after {updates} updates: {why}")
    own = difference(plain, again, rounding=False)
    return f"{updates} updates and acts: equal up to rounding; {'plain ones repeat exactly' if own is None else own}"


def evaluated(case: cases.Case) -> list[Any]:
    """Acting in three other environments with other random numbers, as an evaluation does."""
    agent, source, given = case.agent, cases.records(case, 3, seed=2), []
    carry = agent.initial(3)
    with drawing_from(agent, draws.Generator(7, agent.device)):
        for _ in range(6):
            carry, action, _ = agent.act(carry, next(source))
            given.append(torch.from_numpy(action))
    return given


VECTORS = ("--task", "gym:CartPole-v1")  # the gradient through an image's decoder is a sum of thousands: noise in bf16
TASKS: dict[str, tuple[str, ...]] = {"dreamer": VECTORS, "r2i": VECTORS, "storm": VECTORS, "po_dreamer": ()}
TASKS["dmawm"] = ("--task", "toy:leavers", "--epochs", "1")
TASKS["mappo"] = (
    "--epochs",
    "1",
    "--minibatches",
    "1",
    "--actor",
    "gru",
    "--backward",
    "4",
)  # one step of each optimiser
MOST, MIDDLE = 0.8, 0.1  # of a tensor's error in bf16, and of their median: 1 is a gradient that is not there


def half(place: Place, app: str) -> str:
    """The gradient of every tensor in bf16 against float32."""
    found = gradients.errors(app, ["--preset", "tiny", *TASKS[app], "--device", place.device.type, "--seed", "3"])
    return judged(found)


def judged(found: Mapping[str, float]) -> str:
    """The errors in a sentence; raises `Failed` where they are too large."""
    (name, most), middle = max(found.items(), key=lambda one: one[1]), statistics.median(found.values())
    sentence = f"{len(found)} tensors: median error {middle:.1%}, the largest {most:.0%} ({name})"
    if not (most < MOST and middle < MIDDLE):
        raise Failed(sentence)
    return sentence


def triton(place: Place) -> str:
    """wm_ssm's kernel against the plain loop: states and gradients."""
    if importlib.util.find_spec("triton") is None:
        raise Left("Triton is not installed")
    import wm_ssm.kernel
    from wm_ssm import linear_scan, plain_scan

    if place.rehearsal:  # in Triton's interpreter
        made = importlib.import_module("triton")
        made.knobs.runtime.interpret = True
        wm_ssm.kernel.kernel = made.jit(wm_ssm.kernel._segment)  # noqa: SLF001
    gaps = []
    for length, shared in itertools.product((2, 7) if place.rehearsal else (2, 64, 1000, 4096), (True, False)):
        torch.manual_seed(length)
        rows, states = (2, 3) if place.rehearsal else (16, 256)
        shape = (states,) if shared else (length, rows, states)
        decay = torch.polar(1 - 0.1 * torch.rand(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64))
        numbers = [decay, *(torch.randn(*s, dtype=torch.complex128) for s in ((length, rows, states), (states,)))]
        reset = (torch.rand(length, rows) < 0.05).to(place.device)
        found = []
        for kind in (torch.complex64, torch.complex128):
            a, b, c = leaves = [x.to(place.device, kind).requires_grad_() for x in numbers]
            kernel = kind == torch.complex64
            x = linear_scan(a, b, c, reset, method="triton") if kernel else plain_scan(a, b, c, reset)
            found.append([x, *torch.autograd.grad((x.real**2).sum(), leaves)])
        for got, wanted in zip(*found, strict=True):
            gaps.append(float((got.detach().to(wanted.dtype) - wanted).abs().max() / wanted.abs().max()))
    if not max(gaps) < 1e-3:
        raise Failed(f"the kernel differs from the loop by {max(gaps):.1e}")
    return f"{len(gaps)} tensors: at most {max(gaps):.1e} from the loop in double precision"


def resume(place: Place) -> str:
    """A run that is killed, twice on a card, against one that is not."""
    options = ["--preset", "tiny", "--task", "toy:catch", "--device", place.device.type]
    kills, steps = ("1", "60") if place.rehearsal else ("2", "90")
    options += [
        "--kill",
        kills,
        "--at",
        "checkpoint",
        "annotate",
        "--steps",
        steps,
        "--save-every",
        "20",
        "--seed",
        "3",
    ]
    done = called([sys.executable, str(TOOLS / "resume_check.py"), "--app", "dreamer", *options])
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode:
        raise Failed(" ".join(last) or done.stderr[-300:])
    return last[0]


def ranks(place: Place) -> str:
    """Two processes that learn one agent, each on a card of its own."""
    if not place.rehearsal and torch.cuda.device_count() < 2:
        raise Left("there is one card")
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", "--preset", "tiny", "--task", "toy:catch", "--device", place.device.type, "--devices", "2"]
        words += ["--steps", "60", "--logdir", folder]
        done = called([sys.executable, "-m", "dreamer", *words])
        if done.returncode:
            raise Failed(done.stderr.strip().splitlines()[-1])
        weights = [newest(Path(folder) / at) for at in (".", "rank-1")]
    if odd := [name for name, weight in weights[0].items() if not torch.equal(weight, weights[1][name])]:
        raise Failed(f"the two hold other weights: {', '.join(odd[:3])}")
    fell = [line for line in done.stderr.splitlines() if "goes on without" in line]
    return "; ".join(["both hold the same weights", *fell])


def newest(folder: Path) -> Mapping[str, Tensor]:
    """The weights of a run folder's last checkpoint."""
    path = checkpoint.latest(folder)
    if path is None:
        raise Failed(f"{folder.name} has no checkpoint")
    return checkpoint.load(path).weights


def called(command: list[str]) -> subprocess.CompletedProcess[str]:
    """A program of its own, which finds what this one has found."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env)

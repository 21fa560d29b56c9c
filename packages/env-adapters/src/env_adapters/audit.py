"""`python -m env_adapters check <task>`: may an agent train on this, with which preset, and what will it take?"""

# the table has one row per thing looked at; n environments step together

from __future__ import annotations

import os
import pickle
import resource
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env_adapters.check import Finding, examine
from env_adapters.facts import repeats
from env_adapters.make import make_vec
from env_adapters.smax import Smax
from env_adapters.step import Step, entries
from env_adapters.team import choose
from env_adapters.vector import VectorEnv

_ENOUGH = 100.0  # environment steps per second below which the environment, not the networks, is likely to set the pace
# What a task's protocol calls its suite, or the protocol's name -> program, preset, the preset's environment steps
_PRESETS: dict[str, tuple[str, str, int]] = {
    "atari100k": ("dreamer", "atari100k", 400_000),
    "dmc_proprio": ("dreamer", "dmc_proprio", 500_000),
    "dmc_vision": ("dreamer", "dmc_vision", 1_000_000),
    "bsuite": ("r2i", "bsuite", 5_000_000),
    "popgym": ("r2i", "popgym", 200_000_000),
    "memory_maze": ("po_dreamer", "memory_maze", 100_000_000),
    "doors": ("po_dreamer", "doors", 60_000),
    "catch": ("dreamer", "catch", 24_000),
}


@dataclass(frozen=True)
class Audit:
    """What was found; `passed` unless something fails. numbers: JSON-able measurements.

    findings: from `examine`, then of the vector form. lines: the estimate in words.
    """

    task: str
    findings: list[Finding]
    numbers: dict[str, Any]
    lines: list[str]

    @property
    def passed(self) -> bool:
        """No part fails; remarks do not count."""
        return all(one.verdict != "fails" for one in self.findings)


def audit(task: str, *, steps: int = 200, envs: int = 2, seed: int = 0, **options: Any) -> Audit:
    """Examine a task alone and in the vector form, measure it, and estimate a run of the preset that suits it.

    steps: agent steps to play at a time. envs: environments of the vector form. options: as of `make`.
    TaskError for a task that cannot be made.

    >>> audit("toy:catch", steps=20).passed
    True
    """
    before = _peak_bytes()
    findings = examine(task, steps=steps, seed=seed, **options)
    if findings[-1].verdict == "fails":
        return Audit(task, findings, {}, [])
    with make_vec(task, envs, workers=0, **options) as env, make_vec(task, envs, workers=1, **options) as workers:
        findings += _vector_findings(env, workers, steps, seed)
        numbers = _measure(env, steps, seed) | {"ram_bytes_per_env": (_peak_bytes() - before) // (envs + 1)}
        slow = numbers["steps_per_second"] < _ENOUGH
        sentence = f"{numbers['steps_per_second']:,.0f} environment steps per second in one process"
        findings.append(Finding("speed", "remark" if slow else "passes", sentence))
        lines = _estimate(env, numbers, task)
    return Audit(task, findings, numbers, lines)


def table(found: Audit) -> str:
    """The audit as text.

    >>> print(table(Audit("toy:x", [Finding("actions", "passes")], {}, [])))
    toy:x
      actions  passes
    verdict: usable
    """
    wide = max(len(one.what) for one in found.findings)
    rows = [f"  {one.what:<{wide}}  {one.verdict:<6}  {one.detail}".rstrip() for one in found.findings]
    remarks = sum(one.verdict == "remark" for one in found.findings)
    verdict = "usable" if found.passed else "not usable: mend what fails"
    if found.passed and remarks:
        verdict += f", with {remarks} remark{'s' if remarks > 1 else ''}"
    return "\n".join([found.task, *rows, f"verdict: {verdict}", *found.lines])


def _vector_findings(env: VectorEnv | Smax, workers: VectorEnv | Smax, steps: int, seed: int) -> Iterator[Finding]:
    plan = _scores(env, steps, seed)
    run = _played(env, env.reset(seed), plan)
    broken = next((fault for fault in map(_reset_fault, run, run[1:]) if fault), None)
    ended = any(step["last"].any() for step in run[:-1])
    if broken:
        yield Finding("auto-reset", "fails", broken)
    else:
        yield Finding("auto-reset", "passes") if ended else Finding("auto-reset", "remark", "no episode ended")
    half = len(plan) // 2
    left = _played(env, env.reset(seed), plan[:half])[-1]
    stored = pickle.dumps(env.state())
    env.reset(seed + 1)  # elsewhere
    env.load_state(pickle.loads(stored))
    faults = env.take_faults()
    rest = _played(env, left, plan[half:])
    if not repeats(env.protocol):
        yield Finding("resume", "remark", faults[0] if faults else "")
        _played(workers, workers.reset(seed), plan[:20])
        yield Finding("worker process", "passes")
        return
    if faults or not all(map(_same, rest, run[half:])):
        yield Finding(
            "resume", "fails", faults[0] if faults else "steps after a restored state differ from the unbroken run's"
        )
    else:
        yield Finding("resume", "passes")
    theirs = _played(workers, workers.reset(seed), plan[:20])
    same = all(map(_same, theirs, run))
    sentence = "" if same else "records from a worker process differ from those in this process"
    yield Finding("worker process", "passes" if same else "fails", sentence)


def _reset_fault(step: Step, after: Step) -> str | None:
    """What breaks the rules between two steps, in one sentence."""
    if (step["terminal"] & ~step["last"]).any():
        return "a record is terminal without being the last of its episode"
    begun = after["first"]
    if (begun != step["last"]).any():
        return "a last record is not followed by the first one of a new episode"
    if after["reward"][begun].any() or after["action"][begun].any():
        return "the record of a reset carries a reward or an action"
    return None


def _same(one: Step, two: Step) -> bool:
    return all(np.array_equal(one[name], two[name]) for name in one)


def _scores(env: VectorEnv | Smax, steps: int, seed: int) -> NDArray[np.float32]:
    """(steps, n, *agents, A) random numbers from which `choose` makes action vectors."""
    axis = () if env.agents is None else (env.agents,)
    shape = (steps, env.num_envs, *axis, env.action_spec.size)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def _played(env: VectorEnv | Smax, step: Step, plan: NDArray[np.float32]) -> list[Step]:
    """The record, and those that follow it where of all that its mask allows the highest score is done."""
    run = [step]
    for scores in plan:
        run.append(env.step(choose(env.action_spec, scores, run[-1].get("action_mask"))))
    return run


def _measure(env: VectorEnv | Smax, steps: int, seed: int) -> dict[str, Any]:
    plan = _scores(env, steps, seed)
    begin = time.perf_counter()
    step = env.reset(seed)
    reset = time.perf_counter() - begin
    begin = time.perf_counter()
    _played(env, step, plan)
    stepping = time.perf_counter() - begin
    begin = time.perf_counter()
    state = env.state()
    env.load_state(state)
    restore = time.perf_counter() - begin
    return {
        "steps_per_second": steps * env.num_envs * env.repeat / stepping,
        "seconds_per_reset": reset / env.num_envs,
        "seconds_per_snapshot": restore / env.num_envs,
        "snapshot_bytes": len(pickle.dumps(state)) // env.num_envs,
        "record_bytes": sum(array.nbytes for array in step.values()) // env.num_envs,
    }


def _estimate(env: VectorEnv | Smax, numbers: dict[str, Any], task: str) -> list[str]:
    memory, reset = f"{numbers['ram_bytes_per_env'] / 1e6:,.0f} MB of memory", numbers["seconds_per_reset"]
    snapshot = f"{numbers['seconds_per_snapshot']:.3f} s and {numbers['snapshot_bytes'] / 1e3:,.0f} kB a snapshot"
    each = f"  each environment: {memory}, {reset:.3f} s a reset, {snapshot}"
    if env.agents is not None:  # which app, and how long, is no matter of what one agent sees and does
        few = f"{env.agents} agents" if env.agents > 1 else "one agent with an axis of its own"
        return [f"suggested: an app for environments of several; this has {few}", each]
    protocol = env.protocol
    keys = (str(protocol.get("name", "")).partition(",")[0], protocol.get("suite", ""))
    app, preset, steps = next((_PRESETS[key] for key in keys if key in _PRESETS), _general(env))
    hours = steps / numbers["steps_per_second"] / 3600
    disk = steps / env.repeat * numbers["record_bytes"]
    numbers |= {"app": app, "preset": preset, "steps": steps, "hours": hours, "disk_bytes": disk}
    alone = f"{hours:.1f} h" if hours >= 2 else f"{hours * 60:.1f} min"
    program = app.replace("_", "-")
    if "UV_RUN_RECURSION_DEPTH" in os.environ:  # uv has this on the path of what it runs, and nowhere else
        program = f"uv run {program}"
    return [
        f"suggested: {program} train --preset {preset} --task {shlex.quote(task)}, {steps:,} environment steps",
        f"  environment alone, nothing learned, one process: about {alone} for them",
        each,
        f"  replay: {numbers['record_bytes']:,} bytes a record, {disk / 1e9:.2f} GB for the run, latents not counted",
        f"  networks: `{program} info --preset {preset}` measures their hours, memory and checkpoints",
    ]


def _general(env: VectorEnv) -> tuple[str, str, int]:
    """What suits an environment of no suite: by what it shows and takes."""
    image = any(len(shape) == 3 for shape, _ in entries(env.observation_space).values())
    if image:
        return _PRESETS["dmc_vision" if env.action_spec.continuous else "atari100k"]
    return _PRESETS["dmc_proprio"] if env.action_spec.continuous else ("dreamer", "cartpole", 16_000)


def _peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

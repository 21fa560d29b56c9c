"""Steps per second of acting in real environments: agent, environments and replay together, and the emulator alone.

Blocks of the whole loop and of the emulator under random actions alternate, so that a busy machine disturbs both alike.
CPU seconds are of this process: with environment workers they miss what the workers do, and only wall seconds tell.

`overlap` is the loop with learning: blocks in which the environments step while the agent learns, as `train` has it,
alternate with blocks in which they wait until it has learned.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
from bench_app import random_actions
from numpy.typing import NDArray
from wm_run import cli, loading
from wm_run.loop import Ratio
from wm_run.replay import Replay

HEAD = (
    "| environments | agent steps a CPU s | emulator alone | whole loop's share of it (least-greatest) | agent ms "
    "| replay ms | environments ms | steps a wall s | alone |"
)

OVERLAP = (
    "| environments | updates a step | ms a step, no learning | learning in turn | together | together over in turn "
    "(least-greatest) |"
)


class Waiting(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """`--task bench_loop:Waiting`: a simulator elsewhere, which takes 50 ms and nothing of this machine."""

    observation_space, action_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8), gymnasium.spaces.Discrete(6)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(0.05)
        return self.observation_space.sample(), 0.0, False, False, {}


class Timer:
    """CPU and wall seconds by name."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}

    def lap(self, name: str, begin: tuple[float, float]) -> tuple[float, float]:
        """Charge the time since `begin` to a name; gives the new beginning."""
        now = time.process_time(), time.perf_counter()
        self.cpu[name] = self.cpu.get(name, 0.0) + now[0] - begin[0]
        self.wall[name] = self.wall.get(name, 0.0) + now[1] - begin[1]
        return now


def block(agent: Any, envs: Any, replay: Replay, at: Any, steps: int) -> tuple[Any, Timer]:
    """`steps` rounds of act, keep, step, as `train` makes them; `at` is (carry, step)."""
    timer, (carry, step) = Timer(), at
    begin = time.process_time(), time.perf_counter()
    for _ in range(steps):
        carry, action, notes = agent.act(carry, step)
        begin = timer.lap("agent", begin)
        replay.add({**step, **notes})
        begin = timer.lap("replay", begin)
        step = envs.step(action)
        begin = timer.lap("environments", begin)
    return (carry, step), timer


def alone(envs: Any, rng: np.random.Generator, steps: int) -> Timer:
    """The environments under random actions."""
    timer = Timer()
    actions = [random_actions(envs.action_spec, envs.num_envs, rng) for _ in range(steps)]
    begin = time.process_time(), time.perf_counter()
    for action in actions:
        envs.step(action)
    timer.lap("alone", begin)
    return timer


def measure(app: str, options: Sequence[str], n: int, *, steps: int, rounds: int) -> dict[str, Any]:
    """One number of environments: medians over the rounds, in seconds for one step of all n."""
    found = importlib.import_module(f"{app}.cli").APP
    threads = [] if any(option.partition("=")[0] == "--threads" for option in options) else ["--threads", "1"]
    config = loading.runtime(cli.parse(found, ["info", *options, *threads]).config)
    config = dataclasses.replace(config, envs=n)
    rng = np.random.default_rng(0)
    with (
        closing(loading.environments(found, config, n)) as envs,
        closing(loading.environments(found, config, n)) as others,
    ):
        agent = loading.build(found, config, envs)
        replay = Replay(None, n, stores=agent.stores, limit_bytes=2**31, chunk=steps, length=config.length)
        others.reset(config.seed)
        at, _ = block(agent, envs, replay, (agent.initial(n), envs.reset(config.seed)), 5)
        alone(others, rng, 5)
        pairs = []
        for _ in range(rounds):
            at, timer = block(agent, envs, replay, at, steps)
            pairs.append((timer, alone(others, rng, steps)))
    row: dict[str, Any] = {"envs": n, "repeat": envs.repeat, "workers": config.workers}
    for kind in ("cpu", "wall"):
        whole = [sum(getattr(timer, kind).values()) for timer, _ in pairs]
        bare = [getattr(timer, kind)["alone"] for _, timer in pairs]
        row |= {
            f"steps_per_{kind}_s": n * steps / statistics.median(whole),
            f"alone_per_{kind}_s": n * steps / statistics.median(bare),
            f"share_{kind}": statistics.median(b / w for b, w in zip(bare, whole, strict=True)),
            f"share_{kind}_spread": [f(b / w for b, w in zip(bare, whole, strict=True)) for f in (min, max)],
            f"parts_{kind}_s": {
                name: statistics.median(getattr(timer, kind)[name] for timer, _ in pairs) / steps
                for name in ("agent", "replay", "environments")
            },
        }
    return row


def learning(
    agent: Any, envs: Any, replay: Replay, at: Any, due: Sequence[int], *, together: bool
) -> tuple[Any, float]:
    """One round for each entry of `due`, with that many updates; `at` is (carry, step). Gives the wall seconds too."""
    (carry, step), begin = at, time.perf_counter()
    for updates in due:
        carry, action, notes = agent.act(carry, step)
        if together:
            envs.send(action)
        replay.add({**step, **notes})
        for _ in range(updates):
            agent.learn(replay)
        step = envs.receive() if together else envs.step(action)
    return (carry, step), time.perf_counter() - begin


def overlap(app: str, options: Sequence[str], *, counts: Sequence[int], steps: int, rounds: int, as_json: bool) -> str:
    """Every number of environments, with workers; medians over the rounds, ratios of blocks that follow each other."""
    found = importlib.import_module(f"{app}.cli").APP
    threads = [] if any(option.partition("=")[0] == "--threads" for option in options) else ["--threads", "1"]
    given = loading.runtime(cli.parse(found, ["info", *options, *threads]).config)
    rows: list[dict[str, Any]] = []
    for n in counts:
        config = dataclasses.replace(given, envs=n)
        with closing(loading.environments(found, config, n)) as envs:
            agent = loading.build(found, config, envs)
            replay = Replay(None, n, stores=agent.stores, limit_bytes=2**31, chunk=steps, length=config.length)
            at: Any = (agent.initial(n), envs.reset(config.seed))
            at, _ = learning(agent, envs, replay, at, [0] * (config.length + 1) + [1], together=False)
            at, idle = learning(agent, envs, replay, at, [0] * steps, together=False)
            ratio = Ratio(config.train_ratio, config.batch * config.length)
            ratio.due(n)
            pairs = []
            for _ in range(rounds):
                due = [ratio.due(n) for _ in range(steps)]
                at, apart = learning(agent, envs, replay, at, due, together=False)
                at, joined = learning(agent, envs, replay, at, due, together=True)
                pairs.append((apart, joined, sum(due)))
        rows.append(
            {
                "envs": n,
                "updates_a_step": statistics.mean(updates for *_, updates in pairs) / steps,
                "ms_a_step_without_learning": 1e3 * idle / steps,
                "ms_a_step_in_turn": 1e3 * statistics.median(apart for apart, *_ in pairs) / steps,
                "ms_a_step_together": 1e3 * statistics.median(joined for _, joined, _ in pairs) / steps,
                "together_over_in_turn": statistics.median(joined / apart for apart, joined, _ in pairs),
                "spread": [f(joined / apart for apart, joined, _ in pairs) for f in (min, max)],
            }
        )
    if as_json:
        return json.dumps({"app": app, "options": list(options), "rows": rows})
    lines = [OVERLAP, "|" + "---|" * 6]
    for row in rows:
        least, greatest = row["spread"]
        lines.append(
            f"| {row['envs']} | {row['updates_a_step']:.2f} | {row['ms_a_step_without_learning']:.1f} | "
            f"{row['ms_a_step_in_turn']:.1f} | {row['ms_a_step_together']:.1f} | {row['together_over_in_turn']:.2f} "
            f"({least:.2f}-{greatest:.2f}) |"
        )
    return "\n".join(lines)


def run(app: str, options: Sequence[str], *, counts: Sequence[int], steps: int, rounds: int, as_json: bool) -> str:
    """Every number of environments, as a table or as JSON."""
    rows = [measure(app, options, n, steps=steps, rounds=rounds) for n in counts]
    if as_json:
        return json.dumps({"app": app, "options": list(options), "rows": rows})
    lines = [HEAD, "|" + "---|" * 9]
    for row in rows:
        parts, (least, greatest) = row["parts_cpu_s"], row["share_cpu_spread"]
        lines.append(
            f"| {row['envs']} | {row['steps_per_cpu_s']:,.0f} | {row['alone_per_cpu_s']:,.0f} | {row['share_cpu']:.3f} "
            f"({least:.3f}-{greatest:.3f}) | {parts['agent'] * 1e3:.2f} | {parts['replay'] * 1e3:.2f} | "
            f"{parts['environments'] * 1e3:.2f} | {row['steps_per_wall_s']:,.0f} | {row['alone_per_wall_s']:,.0f} |"
        )
    return "\n".join(lines)

"""Environment steps per second of the loop alone (no agent, random actions) beside the bare emulator's, as ratios.

env_bench.py [--tasks NAME ...] [--envs 1 4 16] [--workers 0 2] [--seconds 3] [--json]

For each task: `bare`, the emulator or package alone, driven with as little around it as it allows, one environment in one
process; then `make_vec` with n environments in this process (workers 0) or in worker processes. All count environment
steps, action repeat included, resets included in the time. `wall` near 1 means that the adapter costs nothing; above 1,
that processes run side by side. `cpu` is the same ratio in processor time of this process, which other load does not
move; with workers it tells what is left of the environments' cost to the process that learns.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from env_adapters import make_vec, opengl
from numpy.typing import NDArray

TASKS = ("atari100k_boxing", "dmc_walker_walk", "dmc_vision_walker_walk", "memory_maze_9x9", "toy:catch", "toy:doors")


class Row(NamedTuple):
    """One measurement: environment steps per second, and the ratios of their rates to the bare emulator's."""

    task: str
    envs: int
    workers: int
    rate: float
    wall: float
    cpu: float


def bare_atari(game: str) -> tuple[Callable[[], None], int]:
    """One agent step of the emulator: 4 frames, two screens read, none shrunk."""
    ale_py: Any = importlib.import_module("ale_py")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(ale_py.roms.get_rom_path(game))
    actions, rng, screen = ale.getMinimalActionSet(), np.random.default_rng(0), np.zeros((210, 160, 3), np.uint8)

    def step() -> None:
        action = actions[rng.integers(len(actions))]
        for frame in range(4):
            ale.act(action)
            if frame > 1:
                ale.getScreenRGB(screen)
        if ale.game_over():
            ale.reset_game()

    return step, 4


def bare_control(domain: str, task: str, vision: bool) -> tuple[Callable[[], None], int]:
    """One agent step of dm_control: 2 control steps through its own environment, the picture where it is observed."""
    opengl.choose()
    env: Any = importlib.import_module("dm_control.suite").load(domain, task, task_kwargs={"random": 0})
    env.reset()
    rng, width = np.random.default_rng(0), env.action_spec().shape

    def step() -> None:
        action = rng.uniform(-1, 1, width)
        for _ in range(2):
            env.step(action)
        if vision:
            env.physics.render(64, 64, camera_id=0)

    return step, 2


def bare_maze() -> tuple[Callable[[], None], int]:
    """One step of the package's 9x9 maze."""
    opengl.choose()
    from env_adapters.memory_maze import import_tasks

    env: Any = import_tasks().memory_maze_9x9(image_only_obs=True, seed=0)
    env.reset()
    rng = np.random.default_rng(0)

    def step() -> None:
        env.step(int(rng.integers(6)))

    return step, 1


def bare_toy(task: str) -> tuple[Callable[[], None], int]:
    """One step of the toy as a gymnasium environment, without the vector form."""
    from env_adapters import make

    env = make(task)
    env.reset(seed=0)
    env.action_space.seed(0)

    def step() -> None:
        if any(env.step(env.action_space.sample())[2:4]):
            env.reset()

    return step, 1


def bare(task: str) -> tuple[Callable[[], None], int]:
    """What makes one agent step of a task's emulator, and its environment steps."""
    if task.startswith("atari100k_"):
        return bare_atari(task.removeprefix("atari100k_"))
    if task.startswith("dmc_"):
        from env_adapters.dmc import TASKS as CONTROL

        name = task.removeprefix("dmc_")
        return bare_control(*CONTROL[name.removeprefix("vision_")], vision=name.startswith("vision_"))
    return bare_maze() if task == "memory_maze_9x9" else bare_toy(task)


def rate(step: Callable[[], Any], counts: int, seconds: float) -> tuple[float, float]:
    """Environment steps per second, and per second of this process's processor time, of a `step` that makes `counts`.

    >>> rate(lambda: time.sleep(0.01), 2, 0.05)[0] < 200
    True
    """
    for _ in range(3):
        step()
    calls, begin, used = 0, time.perf_counter(), time.process_time()
    while (spent := time.perf_counter() - begin) < seconds:
        step()
        calls += 1
    return calls * counts / spent, calls * counts / max(time.process_time() - used, 1e-9)


def loop_rate(task: str, envs: int, workers: int, seconds: float) -> tuple[float, float]:
    """The two rates of `make_vec` with random actions."""
    with closing(make_vec(task, envs, workers=workers)) as env:
        env.reset(0)
        rng, spec = np.random.default_rng(0), env.action_spec

        def action() -> NDArray[Any]:
            parts = [np.eye(n, dtype=np.float32)[rng.integers(n, size=envs)] for n in spec.discrete]
            parts.append(rng.uniform(-1, 1, (envs, spec.continuous)).astype(np.float32))
            return np.concatenate(parts, -1)

        return rate(lambda: env.step(action()), envs * env.repeat, seconds)


def measure(task: str, envs: list[int], workers: list[int], seconds: float) -> list[Row]:
    """The bare emulator's row (0 environments of ours), then one for each number of environments and workers."""
    alone, alone_cpu = rate(*bare(task), seconds)
    rows = [Row(task, 0, 0, alone, 1.0, 1.0)]
    for n in envs:
        for count in workers:
            if count <= n:
                found, cpu = loop_rate(task, n, count, seconds)
                rows.append(Row(task, n, count, found, found / alone, cpu / alone_cpu))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--envs", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not given.json:
        print(f"{'task':<24} {'envs':>5} {'workers':>7} {'steps/s':>9} {'wall':>6} {'cpu':>6}")
    for task in given.tasks:
        for row in measure(task, given.envs, given.workers, given.seconds):
            if given.json:
                print(json.dumps(row._asdict()), flush=True)
            else:
                envs = str(row.envs) if row.envs else "bare"
                print(
                    f"{row.task:<24} {envs:>5} {row.workers:>7} {row.rate:>9.0f} {row.wall:>6.2f} {row.cpu:>6.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

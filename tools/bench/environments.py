"""Environment steps per second of environments alone (no agent, random actions) beside the bare emulator's, as ratios.

environments [--tasks NAME ...] [--envs 1 4 16] [--workers 0 2] [--seconds 3]

For each task: `bare`, the emulator or package alone, driven with as little around it as it allows, one environment in one
process; then `make_vec` with n environments in this process (workers 0) or in worker processes. All count environment
steps, action repeat included, resets included in the time. `wall` near 1 means that the adapter costs nothing; above 1,
that processes run side by side. `cpu` is the same ratio in processor time of this process, which other load does not
move; with workers it tells what is left of the environments' cost to the process that learns. Random actions are those that
a mask allows. Of teams PettingZoo's alone have a bare row: Melting Pot and SMAC are stepped by a process of their own in any
case, and `smax` has SMAX's compiled step.
"""

from __future__ import annotations

import importlib
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from typing import Any

import numpy as np
from env_adapters import TeamEnv, make, make_vec, opengl
from wm_run.players import Random

from bench.clock import cost
from bench.command import Command, add, say
from bench.rows import Row, here

TASKS = ("atari100k_boxing", "dmc_walker_walk", "dmc_vision_walker_walk", "memory_maze_9x9", "toy:catch", "toy:doors")
Rates = dict[str, float]


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


def bare_toy(task: str) -> tuple[Callable[[], None], int] | None:
    """One step of the toy as a gymnasium environment, without the vector form; None for a team, which may have masks."""
    env = make(task)
    if isinstance(env, TeamEnv):
        return None
    env.reset(seed=0)
    env.action_space.seed(0)

    def step() -> None:
        if any(env.step(env.action_space.sample())[2:4]):
            env.reset()

    return step, 1


def bare_zoo(module: str) -> tuple[Callable[[], None], int]:
    """One step of PettingZoo's parallel environment, all agents that are there."""
    env = importlib.import_module(module).parallel_env()
    env.reset(seed=0)
    for agent in env.possible_agents:
        env.action_space(agent).seed(0)

    def step() -> None:
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})
        if not env.agents:
            env.reset()

    return step, 1


def bare(task: str) -> tuple[Callable[[], None], int] | None:
    """What makes one agent step of a task's emulator, and its environment steps; None where there is no such thing here."""
    if task.startswith("zoo:"):
        return bare_zoo(task.removeprefix("zoo:"))
    if task.startswith(("meltingpot:", "smac:", "smacv2:", "smax:")):
        return None
    if task.startswith("atari100k_"):
        return bare_atari(task.removeprefix("atari100k_"))
    if task.startswith("dmc_"):
        from env_adapters.dmc import TASKS as CONTROL

        name = task.removeprefix("dmc_")
        return bare_control(*CONTROL[name.removeprefix("vision_")], vision=name.startswith("vision_"))
    return bare_maze() if task == "memory_maze_9x9" else bare_toy(task)


def rates(step: Callable[[], Any], counts: int, seconds: float) -> Rates:
    """Environment steps per wall second, and per CPU second of this process, of a `step` that makes `counts`.

    >>> rates(lambda: time.sleep(0.01), 2, 0.05)["wall"] < 200
    True
    """
    for _ in range(3):
        step()
    calls = [0]

    def run() -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            step()
            calls[0] += 1

    took = cost(run)
    return {kind: calls[0] * counts / max(took[f"{kind}_s"], 1e-9) for kind in ("wall", "cpu")}


def loop_rates(task: str, envs: int, workers: int, seconds: float) -> Rates:
    """The two rates of `make_vec` with random actions."""
    with closing(make_vec(task, envs, workers=workers)) as env:
        player, at = Random(env.action_spec, (0,)), [env.reset(0)]

        def step() -> None:
            at[0] = env.step(player.act(at[0]))

        return rates(step, envs * env.repeat, seconds)


def environments(args: Namespace, words: list[str]) -> Iterator[Row]:
    """For each task the bare emulator's row, then one for each number of environments and workers."""
    for task in args.tasks:
        alone = bare(task)
        found = {("bare", 0): rates(*alone, args.seconds)} if alone else {}
        for n, workers in product(args.envs, args.workers):
            if workers <= n:
                found[str(n), workers] = loop_rates(task, n, workers, args.seconds)
        for (n, workers), one in found.items():
            ratios = {f"{kind}_ratio": one[kind] / found["bare", 0][kind] for kind in one} if alone else {}
            speeds = {f"steps_per_{kind}": one[kind] for kind in one}
            yield here() | {"task": task, "envs": n, "workers": workers} | speeds | ratios
        say(f"{task} is done")


def options(parser: ArgumentParser) -> None:
    add(parser, tasks=list(TASKS), envs=[1, 4, 16], workers=[0, 2])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default 3)")


COLUMNS = {
    "task": "{task}",
    "envs": "{envs}",
    "workers": "{workers}",
    "steps/s": "{steps_per_wall:,.0f}",
    "steps/CPU s": "{steps_per_cpu:,.0f}",
    "wall": "{wall_ratio:.2f}",
    "cpu": "{cpu_ratio:.2f}",
}
COMMANDS = {"environments": Command(environments, COLUMNS, options, app=False, key=("task", "envs", "workers"))}

"""Steps per second of acting in real environments: agent, environments and replay together, and the emulator alone.

`loop`: blocks of the whole loop and of the emulator under random actions alternate, so that a busy machine disturbs both
alike. CPU seconds are of this process: with environment workers they miss what the workers do, and only wall seconds tell.

`overlap` is the loop with learning: blocks in which the environments step while the agent learns, as `train` has it,
alternate with blocks in which they wait until it has learned.
"""

from __future__ import annotations

import dataclasses
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from wm_run import loading
from wm_run.loop import Ratio
from wm_run.replay import Replay

from bench.cases import configured, random_actions
from bench.clock import compared, cost, interleaved
from bench.command import Command, add
from bench.parts import Track
from bench.rows import Row, here
from bench.update import ENVS


class Waiting(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """`--task bench.loop:Waiting`: a simulator elsewhere, which takes 50 ms and nothing of this machine."""

    observation_space, action_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8), gymnasium.spaces.Discrete(6)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(0.05)
        return self.observation_space.sample(), 0.0, False, False, {}


@dataclasses.dataclass
class Loop:
    """An agent in environments of its own; `at` is (carry, step)."""

    agent: Any
    envs: Any
    replay: Replay
    config: Any
    at: tuple[Any, Any]

    def act(self, steps: int) -> dict[str, Any]:
        """The cost of that many rounds of act, keep, step, as `train` makes them, and CPU seconds of each part."""
        track = Track(lambda: [time.process_time()])

        def run() -> None:
            carry, step = self.at
            for _ in range(steps):
                with track.inside("agent"):
                    carry, action, notes = self.agent.act(carry, step)
                with track.inside("replay"):
                    self.replay.add({**step, **notes})
                with track.inside("environments"):
                    step = self.envs.step(action)
            self.at = carry, step

        return cost(run) | {f"{key.part}_s": charge[0] / steps for key, charge in track.charged.items()}

    def learn(self, due: Sequence[int], *, together: bool) -> dict[str, float]:
        """The cost of a round for each entry of `due`, with that many updates."""

        def run() -> None:
            carry, step = self.at
            for updates in due:
                carry, action, notes = self.agent.act(carry, step)
                if together:
                    self.envs.send(action)
                self.replay.add({**step, **notes})
                for _ in range(updates):
                    self.agent.learn(self.replay)
                step = self.envs.receive() if together else self.envs.step(action)
            self.at = carry, step

        return cost(run)


@contextmanager
def beginning(args: Namespace, words: Sequence[str], n: int) -> Iterator[Loop]:
    """The loop of an app with n environments, before its first step. Raises UserError."""
    app, config = configured(args.app, words)
    config = dataclasses.replace(config, envs=n)
    with closing(loading.environments(app, config, n)) as envs:
        agent = loading.build(app, config, envs)
        replay = Replay(None, n, stores=agent.stores, limit_bytes=2**31, chunk=args.steps, length=config.length)
        yield Loop(agent, envs, replay, config, (agent.initial(n), envs.reset(config.seed)))


def loop(args: Namespace, words: list[str]) -> Iterator[Row]:
    """A row for each number of environments: the whole loop, with the emulator alone over it as its share."""
    for n in args.envs:
        with beginning(args, words, n) as whole, beginning(args, words, n) as other:
            rng, spec = np.random.default_rng(0), whole.envs.action_spec

            def alone(steps: int) -> dict[str, float]:
                actions = [random_actions(spec, n, rng) for _ in range(steps)]  # noqa: B023
                return cost(lambda: [other.envs.step(action) for action in actions])

            whole.act(5), alone(5)
            players = {"alone": lambda: alone(args.steps), "whole": lambda: whole.act(args.steps)}
            bare, row = compared(interleaved(players, args.rounds))
            rates = {
                f"{what}_per_{kind}": n * args.steps / one[f"{kind}_s"]
                for what, one in (("alone", bare), ("steps", row))
                for kind in ("cpu", "wall")
            }
            about = here() | {"app": args.app, "task": whole.config.task, "repeat": whole.envs.repeat, "envs": n}
            yield about | row | rates | {"workers": whole.config.workers, "steps": args.steps}


def overlap(args: Namespace, words: list[str]) -> Iterator[Row]:
    """A row for each number of environments, which have workers: learning and stepping together over one after the other."""
    for n in args.envs:
        with beginning(args, words, n) as one:
            config = one.config
            one.learn([0] * (config.length + 1) + [1], together=False)
            idle = one.learn([0] * args.steps, together=False)["wall_s"]
            ratio = Ratio(config.train_ratio, config.batch * config.length)
            ratio.due(n)
            due = [[ratio.due(n) for _ in range(args.steps)] for _ in range(args.rounds)]
            rounds = {together: iter(due) for together in (True, False)}

            def play(together: bool) -> dict[str, float]:
                return one.learn(next(rounds[together]), together=together)  # noqa: B023

            players = {"together": partial(play, True), "in turn": partial(play, False)}
            joined, apart = compared(interleaved(players, args.rounds))
            yield (
                here()
                | {"app": args.app, "task": config.task, "envs": n, "workers": config.workers}
                | apart
                | {
                    "updates_a_step": sum(map(sum, due)) / args.rounds / args.steps,
                    "idle_s": idle / args.steps,
                    "apart_s": apart["wall_s"] / args.steps,
                    "together_s": joined["wall_s"] / args.steps,
                }
            )


def options(parser: ArgumentParser) -> None:
    add(parser, envs=ENVS)
    parser.add_argument("--steps", type=int, metavar="N", default=100, help="of a block (default 100)")


ACTING = {
    "environments": "{envs}",
    "agent steps a CPU s": "{steps_per_cpu:,.0f}",
    "emulator alone": "{alone_per_cpu:,.0f}",
    "its share of the loop (least-greatest)": "{ratio_cpu_s:.3f} ({ratio_cpu_s_least:.3f}-{ratio_cpu_s_greatest:.3f})",
    "agent ms": "{agent_s:m.2f}",
    "replay ms": "{replay_s:m.2f}",
    "environments ms": "{environments_s:m.2f}",
    "steps a wall s": "{steps_per_wall:,.0f}",
    "alone": "{alone_per_wall:,.0f}",
}
LEARNING = {
    "environments": "{envs}",
    "updates a step": "{updates_a_step:.2f}",
    "ms a step, no learning": "{idle_s:m.1f}",
    "learning in turn": "{apart_s:m.1f}",
    "together": "{together_s:m.1f}",
    "together over in turn (least-greatest)": "{ratio_wall_s:.2f} ({ratio_wall_s_least:.2f}-{ratio_wall_s_greatest:.2f})",
}
KEY = ("app", "task", "envs", "workers")
COMMANDS = {
    "loop": Command(loop, ACTING, options, key=KEY),
    "overlap": Command(overlap, LEARNING, options, key=KEY),
}

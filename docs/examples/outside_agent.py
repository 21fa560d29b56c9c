"""An agent of another library learns in the dream alone: stable-baselines3's PPO, scored in the real environment beside chance
and the app's own policy. It sees the model's state, in the real environment the one after all that was observed.

It wants an environment of its own, for that library asks for an older gymnasium than ours (add numpy's and torch's CPU
builds as docs/contributing.md says):

    uv venv outside && uv pip install -p outside -e packages/wm-core -e packages/wm-run[gym] -e packages/env-adapters[dmc,atari]
    uv pip install -p outside -e packages/wm-var -e apps/dreamer stable-baselines3
    outside/bin/python docs/examples/outside_agent.py LOGDIR --steps 20000 --episodes 10
"""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from dreamer import load
from env_adapters import make
from wm_run import as_env

Choose = Callable[
    [Any, Any, bool], Any
]  # of what the environment shows, the model's state, and whether it is the first step


def learned(dream: Any, steps: int, seed: int) -> Choose:
    """PPO with that library's own numbers, after so many steps of dreams."""
    from stable_baselines3 import PPO

    agent = PPO("MlpPolicy", dream, n_steps=512, seed=seed, device="cpu").learn(steps)
    return lambda native, state, first: agent.predict(state, deterministic=True)[0]


def chance(dream: Any, seed: int) -> Choose:
    """Any action."""
    dream.action_space.seed(seed)
    return lambda native, state, first: dream.action_space.sample()


def own(loaded: Any) -> Choose:
    """The policy that the run learned, its mode."""
    carry = None

    def choose(native: Any, state: Any, first: bool) -> Any:
        nonlocal carry
        action, carry = loaded.policy(native, None if first else carry, mode=True)
        return action

    return choose


def scores(dream: Any, real: Any, choose: Choose, seeds: range) -> Iterator[float]:
    """Of real episodes."""
    for seed in seeds:
        native, _ = real.reset(seed=seed)
        state, score, over, first = dream.follow(native), 0.0, False, True
        while not over:
            action = choose(native, state, first)
            native, reward, terminated, truncated, _ = real.step(action)
            state, score, over, first = dream.follow(native, action), score + reward, terminated or truncated, False
        yield float(score)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("logdir")
    for name, value in {"--steps": 20_000, "--episodes": 10, "--horizon": 50, "--seed": 0}.items():
        parser.add_argument(name, default=value, type=int)
    asked = parser.parse_args()
    loaded = load(asked.logdir)
    dream = as_env(loaded, observations="latent", horizon=asked.horizon)
    real, seeds = make(loaded.config.task), range(20_000, 20_000 + asked.episodes)
    ways = {"chance": chance(dream, asked.seed), "own policy": own(loaded)}
    if asked.steps:
        ways[f"PPO after {asked.steps:,} dreamed steps"] = learned(dream, asked.steps, asked.seed)
    for who, choose in ways.items():
        found = list(scores(dream, real, choose, seeds))
        print(json.dumps({"who": who, "mean": np.mean(found), "error": np.std(found) / len(found) ** 0.5}), flush=True)

"""The cross-entropy method in a world model, scored in the real environment: at every step it plans anew from what the agent
knows of the real episode so far. The app's own policy and its critic are not asked.

    uv run docs/examples/planner.py LOGDIR --episodes 10
"""

import argparse
import json

import numpy as np
import torch
from env_adapters import decode_action, make
from gymnasium.spaces import Discrete
from wm_run import as_env


def plan(env, guess, *, sequences=128, rounds=3, elite=12, discount=0.99, generator=None):
    """The best sequence of action vectors (h, A) that is found from the present state, beginning with a guess at it."""
    discrete, mean = isinstance(env.action_space, Discrete), guess
    deviation = torch.ones_like(guess)
    shape = (sequences, *guess.shape)
    for _ in range(rounds):
        if discrete:  # mean: the probability of each action, by step
            chances = 0.9 * mean + 0.1 / env.action_size
            drawn = torch.multinomial(chances, sequences, replacement=True, generator=generator).T
            actions = torch.nn.functional.one_hot(drawn, env.action_size).float()
        else:
            actions = (mean + deviation * torch.randn(shape, generator=generator)).clamp(-1, 1)
        best = actions[env.simulate(actions).returns(discount).cpu().topk(elite).indices]
        mean, deviation = best.mean(0), best.std(0) + 0.1
    return mean


def episode(env, real, seed, horizon):
    """The score of one real episode."""
    generator, score, over = torch.Generator().manual_seed(seed), 0.0, False
    blank = torch.full((1, env.action_size), 1 / env.action_size if isinstance(env.action_space, Discrete) else 0.0)
    found = blank.repeat(horizon, 1)
    env.follow(real.reset(seed=seed)[0])
    while not over:
        found = plan(env, torch.cat([found[1:], blank]), generator=generator)
        action = decode_action(env.action_space, found[0].numpy())
        observation, reward, terminated, truncated, _ = real.step(action)
        score, over = score + reward, terminated or truncated
        env.follow(observation, action)
    return float(score)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("logdir")
    for name, value in {"--task": "toy:catch", "--episodes": 10, "--horizon": 10, "--seed": 20_000}.items():
        parser.add_argument(name, default=value, type=type(value))
    asked = parser.parse_args()
    env, real = as_env(asked.logdir, device="cpu").unwrapped, make(asked.task, seed=asked.seed)
    scores = [episode(env, real, asked.seed + i, asked.horizon) for i in range(asked.episodes)]
    print(json.dumps({"mean": np.mean(scores), "error": np.std(scores) / len(scores) ** 0.5, "scores": scores}))

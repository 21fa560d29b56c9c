"""Disentangled Multi-Agent World Model (LAMDA-RL 2026).

`train(env=MyEnv, steps=10_000)` trains, `load(logdir).policy(observation)` acts with a trained agent.
"""

from dmawm.cli import load, train

__all__ = ["load", "train"]

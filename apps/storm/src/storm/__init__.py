"""STORM (2023), a world model on a transformer, and value alignment on it.

`train(env=MyEnv, steps=10_000)` trains, `load(logdir).policy(observation)` acts with a trained agent.
"""

from storm.cli import load, train

__all__ = ["load", "train"]

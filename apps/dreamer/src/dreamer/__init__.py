"""DreamerV3 (Nature 2025), the baseline that all four papers are compared with.

`train(env=MyEnv, steps=10_000)` trains, `load(logdir).policy(observation)` acts with a trained agent.
"""

from dreamer.cli import load, train

__all__ = ["load", "train"]

"""R2I (Samsami et al., ICLR 2024): DreamerV3 on a state-space model, for tasks that ask for long memory.

`train(env=MyEnv, steps=10_000)` trains, `load(logdir).policy(observation)` acts with a trained agent.
"""

from r2i.cli import load, train

__all__ = ["load", "train"]

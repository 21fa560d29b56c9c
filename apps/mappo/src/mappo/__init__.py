"""MAPPO (Yu et al. 2022): PPO of a shared policy with a critic that sees the whole team. The model-free baseline.

`load(logdir).policy(observations, mask=mask)` acts with a trained team.
"""

from mappo.cli import load, train

__all__ = ["load", "train"]

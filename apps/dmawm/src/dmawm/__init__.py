"""Disentangled Multi-Agent World Model (LAMDA-RL 2026).

`load(logdir).policy(observation)` acts with a trained agent.
"""

from dmawm.cli import load

__all__ = ["load"]

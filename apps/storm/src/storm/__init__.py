"""STORM (2023), a world model on a transformer, and value alignment on it.

`load(logdir).policy(observation)` acts with a trained agent.
"""

from storm.cli import load

__all__ = ["load"]

"""DreamerV3 (Nature 2025), the baseline that all four papers are compared with.

`load(logdir).policy(observation)` acts with a trained agent.
"""

from dreamer.cli import load

__all__ = ["load"]

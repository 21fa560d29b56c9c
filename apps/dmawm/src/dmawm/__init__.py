"""dmawm: say in a line what it is.

`load(logdir).policy(observation)` acts with a trained agent.
"""

from dmawm.cli import load

__all__ = ["load"]

"""PO-Dreamer: a Dreamer whose world model recalls the most similar of its last 800 steps, across episodes.

`train(env=MyEnv, steps=10_000)` trains, `load(logdir).policy(observation)` acts with a trained agent; its carry holds the memory.
"""

from po_dreamer.cli import load, train

__all__ = ["load", "train"]

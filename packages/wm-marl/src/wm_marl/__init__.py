"""Many agents in one world model: teams as rows, modules that couple them, absence, and PPO in a dream."""

from wm_marl.rows import agents_of, rows_of

__all__ = ["agents_of", "rows_of"]

"""A causal transformer as the sequence model of a world model, with a key-value cache for imagination."""

from wm_tssm.attention import Attention, Block
from wm_tssm.cache import Cache
from wm_tssm.sight import across_episodes, within_episode
from wm_tssm.stack import TooLong, TransformerStack

__all__ = ["Attention", "Block", "Cache", "TooLong", "TransformerStack", "across_episodes", "within_episode"]

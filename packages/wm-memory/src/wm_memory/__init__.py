"""Recall over the last steps across episodes, and the two-branch recurrent state-space model of PO-Dreamer."""

from wm_memory.bank import across_episodes, this_episode
from wm_memory.decoder import MemoryDecoder, SoftmaxMatch, Squared
from wm_memory.diagnostics import branch_kl, staleness, without_recall
from wm_memory.frames import Frames, MemoryEncoder
from wm_memory.fused import FusedRSSM, RecalledRSSM
from wm_memory.gaussian import BottleneckEncoder, Gaussian
from wm_memory.memory import Memory
from wm_memory.norm_gru import NormGRU
from wm_memory.pair import CrossAttention, PairAttention
from wm_memory.recall import (
    ActionEncoder,
    AgePositions,
    NoActions,
    NoPositions,
    OneHotActionEncoder,
    RankPositions,
    Recall,
    Repeat,
    cosine,
    select,
)
from wm_memory.rows import InitialRows

__all__ = [
    "ActionEncoder",
    "AgePositions",
    "BottleneckEncoder",
    "CrossAttention",
    "Frames",
    "FusedRSSM",
    "Gaussian",
    "InitialRows",
    "Memory",
    "MemoryDecoder",
    "MemoryEncoder",
    "NoActions",
    "NoPositions",
    "NormGRU",
    "OneHotActionEncoder",
    "PairAttention",
    "RankPositions",
    "Recall",
    "RecalledRSSM",
    "Repeat",
    "SoftmaxMatch",
    "Squared",
    "across_episodes",
    "branch_kl",
    "cosine",
    "select",
    "staleness",
    "this_episode",
    "without_recall",
]

"""Many agents in one world model: teams as rows, modules that couple them, absence, and PPO in a dream."""

from wm_marl.absent import absent, absorbed, muted
from wm_marl.across import AcrossAgents
from wm_marl.alone import Alone, alone_like
from wm_marl.asking import PlacesAsk, PlacesHearOne
from wm_marl.critic import Squared, team_critic
from wm_marl.interaction import interaction_predictor
from wm_marl.interleaved import Interleaved, by_moments, by_rows
from wm_marl.masks import MASKS, SampledBernoullis, mask_metrics
from wm_marl.mat import MATPolicy
from wm_marl.mat_actions import MATActions
from wm_marl.mat_critic import mat_critic
from wm_marl.mat_networks import MATDecoder, MATEncoder
from wm_marl.ppo import PPO, clipped_loss, standardised
from wm_marl.rows import agents_of, fold, fold_steps, rows_of, unfold
from wm_marl.shared import shared, team_mean
from wm_marl.team import TeamHead, Trunk, team_heads
from wm_marl.transformer import AgentTransformer

__all__ = [
    "MASKS",
    "PPO",
    "AcrossAgents",
    "AgentTransformer",
    "Alone",
    "Interleaved",
    "MATActions",
    "MATDecoder",
    "MATEncoder",
    "MATPolicy",
    "PlacesAsk",
    "PlacesHearOne",
    "SampledBernoullis",
    "Squared",
    "TeamHead",
    "Trunk",
    "absent",
    "absorbed",
    "agents_of",
    "alone_like",
    "by_moments",
    "by_rows",
    "clipped_loss",
    "fold",
    "fold_steps",
    "interaction_predictor",
    "mask_metrics",
    "mat_critic",
    "muted",
    "rows_of",
    "shared",
    "standardised",
    "team_critic",
    "team_heads",
    "team_mean",
    "unfold",
]

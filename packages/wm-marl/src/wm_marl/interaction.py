"""deter of all agents -> what they tell each other -> each one's prior: DMAWM's interaction predictor (eq. 2, A.3).

p(z^{1:n} | h^{1:n}) as a product over agents, each factor given all of h: how two agents' latents depend on each other
beyond what h says cannot be expressed so. It is the paper's, and its ablation differs in the mixer alone.
Sizes: N agents, S x K stochastic.
"""

from __future__ import annotations

from torch import nn
from wm_core.blocks import MLP, linear

from wm_marl.across import AcrossAgents
from wm_marl.alone import Alone
from wm_marl.transformer import AgentTransformer


def interaction_predictor(
    mixer: AgentTransformer | Alone, stoch: tuple[int, int], *, units: int, layers: int, rows: int = -2
) -> AcrossAgents:
    """The prior of a team as a module on rows, (..., rows, D) -> logits (..., rows, S*K): an RSSM's `prior`.

    Args:
        mixer: an `AgentTransformer` on deter is the paper's; `alone_like` it, the ablation IP.
        stoch: S and K.
        units, layers: of the MLP between the mixer and the logits.
        rows: the axis of the rows: -2 for an RSSM, 0 for a `Parallel`.

    >>> import torch
    >>> from wm_core import RSSM
    >>> mixer = AgentTransformer(16, agents=3, width=32, layers=1, heads=4, hidden=64)
    >>> prior = interaction_predictor(mixer, (4, 3), units=32, layers=1)
    >>> rssm = RSSM(deter=16, stoch=(4, 3), embed=5, action=2, hidden=8, blocks=2, prior=prior)
    >>> embed, reset = {"obs": torch.zeros(6, 7, 5)}, torch.zeros(6, 7, dtype=torch.bool)
    >>> rssm.observe(rssm.initial(6), embed, torch.zeros(6, 7, 2), reset).prior.shape
    torch.Size([6, 7, 4, 3])
    """
    mlp = MLP(mixer.width, units, layers)
    return AcrossAgents(nn.Sequential(mixer, mlp, linear(mlp.width, stoch[0] * stoch[1])), mixer.agents, rows=rows)

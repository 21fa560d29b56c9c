"""Tokens of a team's agents -> each by itself: what an ablation puts where agents were mixed, at an equal count of weights.

Sizes: N agents, I features in, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from wm_core.blocks import MLP, linear

from wm_marl.transformer import AgentTransformer


class Alone(nn.Module):
    """An MLP on every agent's token and who it is, and a linear layer: (..., N, I) -> (..., N, D). Nobody hears of anybody.

    It stands where an `AgentTransformer` does, which also knows who is who.
    """

    who: Tensor

    def __init__(self, inputs: int, *, agents: int, width: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.inputs, self.agents, self.width = inputs, agents, width
        self.mlp, self.out = MLP(inputs + agents, hidden, layers), linear(hidden, width)
        self.register_buffer("who", torch.eye(agents), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        who = self.who.to(tokens.dtype).expand(*tokens.shape[:-1], -1)
        mixed: Tensor = self.out(self.mlp(torch.cat([tokens, who], -1)))
        return mixed


def alone_like(mixer: AgentTransformer, layers: int = 3) -> Alone:
    """An `Alone` of that transformer's sizes whose hidden width gives it as many weights, as near as an integer comes:
    within 2% where the transformer has some ten thousand.

    >>> from wm_core.learner import trainable
    >>> mixer = AgentTransformer(64, agents=5, width=64, layers=2, heads=4, hidden=128)
    >>> trainable(mixer), trainable(alone_like(mixer))
    (71552, 71185)
    """
    aim = sum(p.numel() for p in mixer.parameters())

    def weights(hidden: int) -> int:
        first = mixer.inputs + mixer.agents + 2  # bias and the norm's scale
        return hidden * (first + (layers - 1) * (hidden + 2) + mixer.width) + mixer.width

    wide = 1
    while weights(wide + 1) <= aim:
        wide += 1
    hidden = min(wide, wide + 1, key=lambda h: abs(weights(h) - aim))
    return Alone(mixer.inputs, agents=mixer.agents, width=mixer.width, hidden=hidden, layers=layers)

"""What a transformer's encoder says of every agent -> its value: the critic of the Multi-Agent Transformer.

Sizes: B teams, N agents, F features, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from wm_core import Latent
from wm_core.blocks import linear
from wm_core.contracts import ScalarDistribution
from wm_core.twohot import TwoHot

from wm_marl.across import joined
from wm_marl.attention import RELU, orthogonal
from wm_marl.critic import Squared
from wm_marl.mat import MATPolicy


class EncoderCritic(nn.Module):
    """Linear, GELU, LayerNorm, Linear on a policy's encoder, for each agent; a `wm_core.contracts.Head`.

    The encoder is the policy's: there its weights are counted, saved and moved, though the values' loss reaches them. A
    copy of this critic alone has an encoder that nobody moves.
    """

    policy: MATPolicy

    def __init__(self, policy: MATPolicy, value: Callable[[Tensor], ScalarDistribution], outputs: int) -> None:
        super().__init__()
        object.__setattr__(self, "policy", policy)  # no submodule of this one
        self.value, self.reads, width = value, policy.reads, policy.encoder.width
        self.body = nn.Sequential(orthogonal(linear(width, width), RELU), nn.GELU(), nn.LayerNorm(width))
        self.out = linear(width, outputs, 0.0)

    def forward(self, latent: Latent) -> ScalarDistribution:
        return self.from_features(latent.read(*self.reads))

    def parts(self) -> list[tuple[nn.Module, str]]:
        """What is worth compiling; the encoder is the policy's."""
        return [(self.body, "forward")]

    def from_features(self, features: Tensor) -> ScalarDistribution:
        """The values of rows (B*N, ...), from features (B*N, ..., F)."""
        return self.from_encoded(self.policy.encoded(features))

    def from_encoded(self, encoded: Tensor) -> ScalarDistribution:
        """The same from what the policy's `encoded` gave, (B, ..., N, D)."""
        return self.value(joined(self.out(self.body(encoded))))


def mat_critic(policy: MATPolicy, *, value: Callable[[Tensor], Any] = TwoHot) -> EncoderCritic:
    """The critic on a policy's encoder: 255 bins for each agent that predict zero at first.

    value: what a value is, `TwoHot`, or `wm_marl.Squared`. In `PPO(..., together=True)` one optimiser moves both, as MAT has
    it; without, the policy's moves the encoder by both losses, and the critic's this head.

    >>> import torch
    >>> policy = MATPolicy(discrete=(5,), continuous=0, widths={"deter": 8}, agents=3, reads=("deter",))
    >>> mat_critic(policy)(Latent(torch.ones(6, 4, 8), torch.zeros(6, 4, 2, 3))).mode().shape
    torch.Size([6, 4])
    """
    return EncoderCritic(policy, value, 1 if value is Squared else 255)

"""Places of every agent's view -> whom each of them asks -> what it hears: attention from places to agents.

What an agent does shows in the view of another at one place, which moves about. Here that place itself finds who stands
there, by weights that all places share; what reaches the view as a whole has to be learned anew for each place.

Sizes: N agents, S places, J features of a place, I of a token, D width, H heads, d = D / H.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.blocks import linear


class PlacesAsk(nn.Module):
    """Attention of each agent's places over all agents of its team: (..., N, S, J), tokens (..., N, I) -> (..., N, S, D).

    Made to be a `PatchPrior`'s `hearing` behind `AcrossAgents`. Raises ValueError for a width that the heads do not divide.

    >>> import torch
    >>> PlacesAsk(5, 6, width=8, heads=2)(torch.zeros(7, 3, 11, 5), torch.zeros(7, 3, 6)).shape
    torch.Size([7, 3, 11, 8])
    """

    def __init__(self, places: int, tokens: int, *, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} features cannot be split among {heads} attention heads")
        self.heads, self.width = heads, width
        self.queries, self.keys_values = linear(places, width), linear(tokens, 2 * width)

    def forward(self, places: Tensor, tokens: Tensor) -> Tensor:
        query = self.queries(places).unflatten(-1, (self.heads, -1)).flatten(-4, -3)  # (..., N * S, H, d)
        key, value = self.keys_values(tokens).unflatten(-1, (2, self.heads, -1)).unbind(-3)  # each (..., N, H, d)
        query, key, value = (x.flatten(0, -4).transpose(1, 2) for x in (query, key, value))
        heard = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return heard.reshape(*places.shape[:-1], -1)


class PlacesHearOne(nn.Module):
    """What stands where places asked all agents, in an ablation: every place hears its own agent's token, by one layer.

    >>> import torch
    >>> PlacesHearOne(5, 6, width=8)(torch.zeros(7, 3, 11, 5), torch.zeros(7, 3, 6)).shape
    torch.Size([7, 3, 11, 8])
    """

    def __init__(self, places: int, tokens: int, *, width: int) -> None:
        super().__init__()
        self.width, self.values = width, linear(tokens, width)

    def forward(self, places: Tensor, tokens: Tensor) -> Tensor:
        heard: Tensor = self.values(tokens).unsqueeze(-2)
        return heard.expand(*places.shape[:-1], -1)

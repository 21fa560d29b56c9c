"""What every agent of a team knows -> what it means among the others -> their actions, one after the other: MAT.

The Multi-Agent Transformer (Wen et al. 2022) as its public code has it: no agent knows its number, nor its place in the
order. Read `wm_marl.plain.mat` first. Sizes: M teams, N agents, F features, D width, A numbers of an action.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.blocks import linear
from wm_core.contracts import ActionDistribution
from wm_core.heads import PolicyHead

from wm_marl.attention import RELU, SMALL, Cache, DecoderBlock, EncoderBlock, orthogonal


class MATEncoder(nn.Module):
    """LayerNorm, Linear, GELU, LayerNorm of each agent, then `blocks` blocks of attention: (..., N, F) -> (..., N, D).

    `identity` adds who each agent is, which MAT does not; without it, agents that change places change their outputs' places
    and nothing else. `hidden` is the width of the blocks' MLP, D if it is not given.

    >>> MATEncoder(6, agents=3, width=16)(torch.zeros(5, 7, 3, 6)).shape
    torch.Size([5, 7, 3, 16])
    """

    def __init__(
        self,
        inputs: int,
        *,
        agents: int,
        width: int = 64,
        blocks: int = 1,
        heads: int = 1,
        hidden: int | None = None,
        identity: bool = False,
    ) -> None:
        super().__init__()
        self.agents, self.width = agents, width
        self.begin = nn.Sequential(nn.LayerNorm(inputs), orthogonal(linear(inputs, width), RELU), nn.GELU())
        self.identity = nn.Parameter(0.02 * torch.randn(agents, width)) if identity else None
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList([EncoderBlock(width, heads, hidden or width) for _ in range(blocks)])

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.begin(tokens.reshape(-1, *tokens.shape[-2:]))
        x = self.norm(x if self.identity is None else x + self.identity)
        for block in self.blocks:
            x = block(x)
        return x.view(*tokens.shape[:-1], -1)


class MATDecoder(nn.Module):
    """What the agents before it did -> the distribution of each agent's action.

    Agent i reads a start and the actions of agents 0 to i - 1, each a vector (A,) behind a number that marks the start, and
    its own representation. `discrete`, `continuous` and `unimix` as of `wm_core.heads.PolicyHead`.
    """

    def __init__(
        self,
        *,
        discrete: tuple[int, ...],
        continuous: int,
        width: int = 64,
        blocks: int = 1,
        heads: int = 1,
        hidden: int | None = None,
        unimix: float = 0.0,
    ) -> None:
        super().__init__()
        self.actions = sum(discrete) + continuous
        tokens = nn.Linear(self.actions + 1, width, bias=False)
        self.begin = nn.Sequential(orthogonal(tokens, RELU), nn.GELU(), nn.LayerNorm(width))
        self.blocks = nn.ModuleList([DecoderBlock(width, heads, hidden or width) for _ in range(blocks)])
        self.end = nn.Sequential(orthogonal(linear(width, width), RELU), nn.GELU(), nn.LayerNorm(width))
        self.head = PolicyHead(
            discrete=discrete,
            continuous=continuous,
            widths={"deter": width},
            units=width,
            layers=0,
            unimix=unimix,
            reads=("deter",),
        )
        orthogonal(self.head.out, SMALL)

    def forward(self, seen: Tensor, action: Tensor, mask: Tensor | None = None) -> ActionDistribution:
        """seen (M, N, D), action (M, N, A) -> each agent's distribution (M, N), given what those before it did."""
        x = self.begin(previous(action.to(seen.dtype)))
        for block in self.blocks:
            x = block(x, seen)
        return self.head.from_features(self.end(x), mask)

    @torch.no_grad()
    def cached(self, seen: Tensor) -> CachedDecoder:
        """The same of one agent after the other."""
        return CachedDecoder(self, seen)

    def start(self, seen: Tensor) -> Tensor:
        """The token before the first agent's: (M, A + 1)."""
        return F.pad(seen.new_zeros(len(seen), self.actions), (1, 0), value=1.0)


class CachedDecoder:
    """A decoder that is asked for one agent after the other, and keeps keys and values of those before: without gradient.

    seen: (M, N, D), as of the decoder.
    """

    def __init__(self, decoder: MATDecoder, seen: Tensor) -> None:
        self.decoder, self.seen, self.at = decoder, seen, 0
        self.blocks = [block for block in decoder.blocks if isinstance(block, DecoderBlock)]
        self.caches = [(Cache(seen.shape[1]), Cache(seen.shape[1])) for _ in self.blocks]
        self.queries = [block.cross.queries(seen) for block in self.blocks]  # (M, H, N, d): asked of the encoder alone

    @torch.no_grad()
    def next(self, token: Tensor, mask: Tensor | None = None) -> ActionDistribution:
        """token (M, A + 1), the action before or a start -> the next agent's distribution (M,); mask (M, A)."""
        here = slice(self.at, self.at + 1)
        x = self.decoder.begin(token[:, None])
        for block, queries, before in zip(self.blocks, self.queries, self.caches, strict=True):
            x = block.step(x, self.seen[:, here], queries[:, :, here], before)
        self.at += 1
        return self.decoder.head.from_features(self.decoder.end(x)[:, 0], mask)


def previous(action: Tensor) -> Tensor:
    """The stream that a decoder reads: a start, then all actions but the last. (M, N, A) -> (M, N, A + 1).

    >>> previous(torch.tensor([[[5.0], [6.0], [7.0]]])).tolist()
    [[[1.0, 0.0], [0.0, 5.0], [0.0, 6.0]]]
    """
    first = F.pad(torch.zeros_like(action[:, :1]), (1, 0), value=1.0)
    return torch.cat([first, F.pad(action[:, :-1], (1, 0))], 1)

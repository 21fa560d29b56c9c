"""tokens + positions -> norm -> blocks of causal attention -> out: STORM's sequence model as a backbone.

Read `wm_tssm.plain` first: the same without cache and window, in straight lines.
Sizes: B rows, T tokens, W tokens carried, L layers, M starts, D width, H heads, d features of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wm_tssm.attention import EPS, Block, Linear
from wm_tssm.cache import Cache, KeysValues
from wm_tssm.padded import PaddedStack
from wm_tssm.sight import Sight, across_episodes


class TooLong(ValueError):
    """More tokens than there are positions."""


@dataclass(frozen=True)
class Each:
    """What `starts` needs: keys and values of every layer (B, H, W + T, d), position (B, W + T), visible or None."""

    layers: list[KeysValues]
    position: Tensor
    visible: Tensor | None


class TransformerStack(nn.Module):
    """A Backbone: causal post-norm transformer blocks with learned absolute positions. Read `wm_tssm.plain.stack` first.

    x = norm(token_t + position_t); then, a block, x = norm(x + attention(x)), x = norm(x + MLP(x)).

    Args:
        width: D, of tokens and output.
        layers: L, blocks.
        heads: H; they divide D.
        hidden: width of the blocks' MLPs.
        positions: bounds the tokens of a row, those of a dream included: a dream of 15 steps from every step of a row of
            64 needs 79.
        context: tokens that an output is made from when they come in pieces; None: as many as there are positions. A piece
            counts positions anew from the oldest of them, so that pieces equal the whole as long as no more have come.
        dropout: in the blocks, in training mode.
        sight: do attention and positions cross episode ends (`across_episodes`, STORM's), or begin again with each
            (`within_episode`)? Only then does a reset hide what preceded it.
        room: tokens that a cache is made for; it grows beyond.
        linear: makes the linear layers: torch's, or others that compute the same.

    Raises:
        ValueError: a context of no token, or of more than there are positions; heads that do not divide D.

    The carry of `initial` is a window of tokens, {"tokens": (B, W, D), "first": (B, W)}; it grows from nothing to
    context - 1, so that a row from `initial` pays nothing for it, and is computed anew with each piece, since positions
    shift. The carry of `starts` is a `Cache`, and a step from it computes one token; there, `first` is not looked at.

    >>> stack = TransformerStack(16, layers=2, heads=4, hidden=32).eval()
    >>> tokens, first = torch.randn(2, 9, 16), torch.zeros(2, 9, dtype=torch.bool)
    >>> out, _, carry, each = stack(stack.initial(2), tokens, first)
    >>> dream = stack.starts(each, last=3)  # 2 rows x 3 starts
    >>> out, _, dream, _ = stack(dream, torch.randn(6, 1, 16), torch.zeros(6, 1, dtype=torch.bool))
    >>> out.shape
    torch.Size([6, 1, 16])
    """

    def __init__(
        self,
        width: int,
        *,
        layers: int,
        heads: int,
        hidden: int,
        positions: int = 64,
        context: int | None = None,
        dropout: float = 0.1,
        sight: Sight = across_episodes,
        room: int = 16,
        linear: Linear = nn.Linear,
    ) -> None:
        super().__init__()
        context = positions if context is None else context
        if not 1 <= context <= positions:
            raise ValueError(f"a context has at least 1 token and at most one for each of {positions}, not {context}")
        self.width, self.context, self.sight, self.room = width, context, sight, room
        self.hidden_width = 0  # a transformer has no state but what it looks back at
        self.positions = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        numbers: dict[str, Any] = {"heads": heads, "hidden": hidden, "dropout": dropout, "linear": linear}
        self.blocks = nn.ModuleList([Block(width, **numbers) for _ in range(layers)])

    def initial(self, *lead: int) -> dict[str, Tensor]:
        """The empty window of `lead` rows."""
        device = self.positions.weight.device
        tokens = torch.zeros(*lead, 0, self.width, dtype=self.positions.weight.dtype, device=device)
        return {"tokens": tokens, "first": torch.zeros(*lead, 0, dtype=torch.bool, device=device)}

    def __call__(self, carry: Any, tokens: Tensor, first: Tensor) -> tuple[Tensor, None, Any, Each | None]:
        """tokens (B, T, D), first (B, T) bool -> out (B, T, D), no hidden state, the next carry, and each for `starts`.

        Raises TooLong for more tokens than there are positions, ValueError for several at a time from a cache.
        """
        return super().__call__(carry, tokens, first)

    def forward(self, carry: Any, tokens: Tensor, first: Tensor) -> tuple[Tensor, None, Any, Each | None]:
        return self._dream(carry, tokens) if isinstance(carry, Cache) else self._observe(carry, tokens, first)

    def _observe(
        self, carry: dict[str, Tensor], tokens: Tensor, first: Tensor
    ) -> tuple[Tensor, None, dict[str, Tensor], Each]:
        size, limit = tokens.shape[1], self.positions.num_embeddings
        if size > limit:
            raise TooLong(f"{size} tokens at once, but only {limit} positions")
        window = torch.cat([carry["tokens"], tokens], 1)[:, -limit:]  # (B, W + T, D)
        begins = torch.cat([carry["first"], first], 1)[:, -limit:]
        position, visible = self.sight(begins)
        x, layers = self._embed(window, position), []
        mask = None if visible is None else visible[:, None]
        for block in self.blocks:
            layers.append(block.attention.keys_values(x))  # type: ignore[operator, union-attr]
            x = block(x, *layers[-1], mask, mask is None)
        keep = window.shape[1] - min(window.shape[1], self.context - 1)
        after = {"tokens": window[:, keep:], "first": begins[:, keep:]}
        return x[:, -size:], None, after, Each(layers, position, visible)

    def _dream(self, cache: Cache, tokens: Tensor) -> tuple[Tensor, None, Cache, None]:
        if tokens.shape[1] != 1:
            raise ValueError(f"a cache is gone on from one token at a time, not {tokens.shape[1]}")
        if cache.used >= self.positions.num_embeddings:
            raise TooLong(
                f"a dream beyond {self.positions.num_embeddings} tokens, its context included: give more positions"
            )
        cache = cache.reserve()
        x, mask = self._embed(tokens, cache.position[:, None]), cache.mask()
        for layer, block in enumerate(self.blocks):
            cache = cache.write(layer, *block.attention.keys_values(x))  # type: ignore[operator, union-attr]
            x = block(x, *cache.read(layer), mask)
        return x, None, cache.advance(), None

    def starts(self, each: Each, last: int) -> Cache:
        """The memory after each of the last `last` tokens: (B*last, ...), row b*last + t. One more than there are tokens
        begins with that before the first."""
        rows, length = each.position.shape
        index = torch.arange(length - last, length, device=each.position.device)  # of the newest token seen, or -1
        position = F.pad(each.position, (1, 0), value=-1)[:, index + 1].flatten() + 1
        layers = [tuple(x.repeat_interleave(last, 0) if last > 1 else x for x in pair) for pair in each.layers]
        if each.visible is not None:
            visible = F.pad(each.visible, (0, 0, 1, 0))[:, index + 1].flatten(0, 1)  # (M, W + T) what that token sees
        elif last > 1:
            visible = (torch.arange(length, device=index.device) <= index[:, None]).repeat(rows, 1)
        else:
            visible = None
        return Cache.of(layers, room=self.room, position=position, visible=visible)  # type: ignore[arg-type]

    def left(self, carry: Any) -> int:
        """How many tokens can still follow a carry, those of a dream included, before there are no more positions.

        >>> stack = TransformerStack(4, layers=1, heads=1, hidden=4, positions=8)
        >>> _, _, carry, each = stack(stack.initial(1), torch.zeros(1, 3, 4), torch.zeros(1, 3, dtype=torch.bool))
        >>> stack.left(stack.initial(1)), stack.left(carry), stack.left(stack.starts(each, 1))
        (8, 5, 5)
        """
        used = carry.used if isinstance(carry, Cache) else carry["tokens"].shape[1]
        return self.positions.num_embeddings - int(used)

    def exportable(self) -> PaddedStack:
        """The same, token by token, with carries of one size."""
        return PaddedStack(self)

    def _embed(self, tokens: Tensor, position: Tensor) -> Tensor:
        return self.norm(tokens + self.positions(position))

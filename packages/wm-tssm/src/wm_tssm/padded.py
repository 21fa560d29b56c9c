"""The same transformer with carries of one size: a window padded on the right, what a file for other runtimes can hold.

Sizes: B rows, C tokens that a window has room for, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from wm_tssm.stack import TransformerStack

Window = dict[str, Tensor]  # tokens (B, C, D), first (B, C) bool, count (B,) int64: how many of the tokens there are


class PaddedStack(nn.Module):
    """A backbone, one token at a time: what a `TransformerStack` in evaluation mode computes, all of it anew.

    What is padded stands behind the newest token, where causal attention never looks. The carry of acting has room for
    `context` tokens, that of a dream (whose start is `starts`) for as many as there are positions; one that is full
    forgets its oldest token, but a dream has to end (see `left` of the stack).

    Args:
        stack: whose weights are shared.

    >>> from wm_tssm import TransformerStack
    >>> stack = TransformerStack(16, layers=2, heads=4, hidden=32, positions=9, context=4).eval()
    >>> padded, token, first = stack.exportable(), torch.randn(2, 1, 16), torch.zeros(2, 1, dtype=torch.bool)
    >>> torch.allclose(padded(padded.initial(2), token, first)[0], stack(stack.initial(2), token, first)[0], atol=1e-6)
    True
    """

    def __init__(self, stack: TransformerStack) -> None:
        super().__init__()
        self.width, self.context, self.sight, self.hidden_width = stack.width, stack.context, stack.sight, 0
        self.positions, self.norm, self.blocks = stack.positions, stack.norm, stack.blocks

    def initial(self, *lead: int) -> Window:
        """A window without tokens."""
        weight = self.positions.weight
        return {
            "tokens": weight.new_zeros(*lead, self.context, self.width),
            "first": torch.zeros(*lead, self.context, dtype=torch.bool, device=weight.device),
            "count": torch.zeros(*lead, dtype=torch.int64, device=weight.device),
        }

    def forward(self, carry: Window, tokens: Tensor, first: Tensor) -> tuple[Tensor, None, Window, Window]:
        """tokens (B, 1, D), first (B, 1) bool -> out (B, 1, D), no hidden state, the next carry, and it for `starts`."""
        room = carry["tokens"].shape[1]
        index = torch.arange(room, device=tokens.device)
        kept = carry["count"].clamp(max=room - 1)  # (B,) tokens that stay
        moved = (index + (carry["count"] - kept)[:, None]).clamp(
            max=room - 1
        )  # (B, C) where each slot's token lies now
        newest = index == kept[:, None]
        after = {
            "tokens": torch.where(
                newest[..., None], tokens, carry["tokens"].gather(1, moved[..., None].expand(-1, -1, self.width))
            ),
            "first": (newest & first) | (~newest & carry["first"].gather(1, moved)),  # ONNX has no `where` of flags
            "count": kept + 1,
        }
        position, visible = self.sight(after["first"])
        mask = index <= index[:, None] if visible is None else visible[:, None]
        x = self.norm(after["tokens"] + self.positions(position))
        for block in self.blocks:
            x = block(x, *block.attention.keys_values(x), mask)  # type: ignore[operator, union-attr]
        out = x.gather(1, kept[:, None, None].expand(-1, 1, self.width))
        return out, None, after, after

    def starts(self, each: Window, last: int) -> Window:
        """The window after the last token with room for a dream; `last` is 1, for there is one token at a time."""
        more = self.positions.num_embeddings - each["tokens"].shape[1]
        return {
            "tokens": F.pad(each["tokens"], (0, 0, 0, more)),
            "first": F.pad(each["first"], (0, more)),
            "count": each["count"],
        }

    def left(self, carry: Any) -> int:
        """How many tokens can follow a carry before there are no more positions, where it is full to begin with."""
        return self.positions.num_embeddings - self.context

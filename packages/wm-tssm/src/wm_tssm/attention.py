"""tokens -> queries, keys, values -> what each token heard of those it may see; and STORM's post-norm block around it.

Read `wm_tssm.plain.attention` and `block` first.
Sizes: B rows, T tokens, J tokens that are seen, D width, H heads, d = D / H.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6  # of every norm of the stack, as in STORM
Linear = Callable[..., nn.Linear]  # torch's linear layer, or one that computes the same by other means


class Attention(nn.Module):
    """Multi-head attention without biases, scores scaled by 1 / sqrt(d).

    Keys and values are made apart from their use, so that a cache can lie between. `linear` makes the four layers.
    Raises ValueError for a width that the heads do not divide.

    >>> import torch
    >>> attention = Attention(16, heads=4, dropout=0.0)
    >>> keys, values = attention.keys_values(torch.zeros(2, 5, 16))
    >>> attention(torch.zeros(2, 5, 16), keys, values, causal=True).shape
    torch.Size([2, 5, 16])
    """

    def __init__(self, width: int, *, heads: int, dropout: float, linear: Linear = nn.Linear) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} features cannot be split among {heads} attention heads")
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (linear(width, width, bias=False) for _ in range(4))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D) -> keys and values, each (B, H, T, d)."""
        return self._split(self.key(x)), self._split(self.value(x))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """x (B, T, D), keys and values (B, H, J, d) -> (B, T, D).

        visible (B, 1, T, J) is True where a token may look; None: everywhere, or with `causal` at no later token.
        """
        heard = F.scaled_dot_product_attention(
            self._split(self.query(x)),
            keys,
            values,
            attn_mask=visible,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        return self.out(heard.transpose(1, 2).flatten(-2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """x = norm(x + dropout(attention(x))); x = norm(x + dropout(MLP(x))), the MLP one hidden ReLU layer with biases.

    >>> sum(p.numel() for p in Block(512, heads=8, hidden=1024, dropout=0.1).parameters())  # STORM's
    2100736
    """

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float, linear: Linear = nn.Linear) -> None:
        super().__init__()
        self.attention = Attention(width, heads=heads, dropout=dropout, linear=linear)
        self.norm, self.last = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(linear(width, hidden), nn.ReLU(), linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """x (B, T, D) with keys and values of all that is seen (B, H, J, d) -> the next x (B, T, D)."""
        x = self.norm(x + self.dropout(self.attention(x, keys, values, visible, causal)))
        return self.last(x + self.dropout(self.mlp(x)))

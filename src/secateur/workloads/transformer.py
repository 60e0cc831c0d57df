"""Small transformer encoders (Vaswani et al. 2017, arXiv:1706.03762), norms first (Xiong et al. 2020, arXiv:2002.04745)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention with several heads. (n, tokens, width) → the same."""

    def __init__(self, width: int, heads: int) -> None:
        """width: a multiple of heads."""
        super().__init__()
        self.head_size = width // heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: (n, tokens), True for those that may be attended to; None for all."""
        query, key, value = (
            part(x).unflatten(-1, (-1, self.head_size)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, None if mask is None else mask[:, None, None])
        return self.output(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return] # a module's call is untyped


class Block(nn.Module):
    """Attention and a feed-forward network, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        """inner: neurons of the feed-forward network."""
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.inner_norm, self.expand, self.contract = (
            nn.LayerNorm(width),
            nn.Linear(width, inner),
            nn.Linear(inner, width),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (n, tokens, width) → the same. mask: as in `Attention`."""
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.contract(F.gelu(self.expand(self.inner_norm(x))))  # type: ignore[no-any-return] # a module's call is untyped


@dataclass(frozen=True)
class Sizes:
    """Of an encoder. width: channels of a token, a multiple of heads. depth: blocks. inner: neurons of a feed-forward network."""

    width: int
    depth: int
    heads: int
    inner: int

    def block(self) -> Block:
        """An untrained block."""
        return Block(self.width, self.heads, self.inner)


class VisionTransformer(nn.Module):
    """An image classifier on square patches, whose tokens are averaged. (n, channels, size, size) → (n, classes).

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929.
    """

    def __init__(self, sizes: Sizes, *, size: int, patch: int, channels: int, classes: int) -> None:
        super().__init__()
        width = sizes.width
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)
        self.blocks = nn.Sequential(*(sizes.block() for _ in range(sizes.depth)))
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.classifier(self.norm(self.blocks(tokens)).mean(1))  # type: ignore[no-any-return] # a module's call is untyped


class TextClassifier(nn.Module):
    """A classifier of token sequences; the tokens that are no padding are averaged. ids and mask (n, tokens) → (n, classes)."""

    def __init__(self, sizes: Sizes, *, words: int, longest: int, classes: int) -> None:
        """words: size of the vocabulary. longest: most tokens of a sequence."""
        super().__init__()
        width = sizes.width
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(longest, width)
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(sizes.block() for _ in range(sizes.depth))
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits. mask: True for tokens, False for padding."""
        x = self.dropout(self.words(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device)))
        for block in self.blocks:
            x = block(x, mask)
        kept = mask.unsqueeze(-1).to(x.dtype)
        return self.classifier((self.norm(x) * kept).sum(1) / kept.sum(1))  # type: ignore[no-any-return] # a module's call is untyped

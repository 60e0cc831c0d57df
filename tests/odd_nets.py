"""Networks whose channels are coupled in ways that tracing gets wrong, each with a stem, something odd behind it, and a head.

`second` and `head` are always ordinary: a group of `second` is right whatever happens before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from torch import Tensor, nn


class Odd(nn.Module):
    """Stem `first`, `middle`, convolution `second`, linear `head`: images (n, 3, 8, 8) → (n, 5)."""

    stem, behind = 24, 24

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, self.stem, 3, padding=1)
        self.second = nn.Conv2d(self.behind, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.build()

    def build(self) -> None:
        """Layers of the middle."""

    def middle(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(self.middle(self.first(x)))).mean((2, 3)))


class GatedHalves(Odd):
    """One half gates the other."""

    behind = 12

    def middle(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, 1)
        return value * torch.sigmoid(gate)


class GatedLinearUnit(Odd):
    behind = 12

    def middle(self, x: Tensor) -> Tensor:
        return F.glu(x, 1)


class SplitBlock(Odd):
    """One half goes through two further convolutions, and all parts are concatenated, as in detectors."""

    behind = 48

    def build(self) -> None:
        self.inner = nn.ModuleList([nn.Conv2d(12, 12, 3, padding=1) for _ in range(2)])

    def middle(self, x: Tensor) -> Tensor:
        parts = list(F.silu(x).chunk(2, 1))
        for layer in self.inner:
            parts.append(F.silu(layer(parts[-1])))
        return torch.cat(parts, 1)


class SpaceFromChannels(Odd):
    behind = 6

    def middle(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(F.relu(x), 2)


class NeighbourAttention(Odd):
    """Channels are weighed by a convolution over channels: neighbours matter, so none can go."""

    def build(self) -> None:
        self.over_channels = nn.Conv1d(1, 1, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        weight = torch.sigmoid(self.over_channels(x.mean((2, 3))[:, None]))[:, 0]
        return x * weight[:, :, None, None]


class NormByGroups(Odd):
    """Each quarter of the channels is divided by its own largest value."""

    def middle(self, x: Tensor) -> Tensor:
        quarters = x.view(len(x), 4, -1, *x.shape[2:])
        return (quarters / quarters.abs().amax(2, keepdim=True)).view(len(x), -1, *x.shape[2:])


class Flipped(Odd):
    """Channels in reverse order, an odd number of them."""

    stem = behind = 15

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(x).flip(1)


class Interleaved(Odd):
    """Channels shuffled between groups, as in ShuffleNet."""

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(x).view(len(x), 4, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


class Ranked(Odd):
    """Channels sorted by their mean: where one ends up depends on the others."""

    def middle(self, x: Tensor) -> Tensor:
        order = x.mean((2, 3)).argsort(1)
        return x.gather(1, order[:, :, None, None].expand_as(x))


ODD = (
    GatedHalves,
    GatedLinearUnit,
    SplitBlock,
    SpaceFromChannels,
    NeighbourAttention,
    NormByGroups,
    Flipped,
    Interleaved,
    Ranked,
)


class Heads(nn.Module):
    """Attention over 6 tokens of 8 features, its heads made by a view. (n, 6, 8) → (n, 5)."""

    def __init__(self, kept_heads: int = 4) -> None:
        super().__init__()
        self.heads = kept_heads
        self.embed = nn.Linear(8, 16)
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.embed(x))
        q, k, v = (layer(x).view(len(x), 6, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1) @ v
        return self.head(self.o(mixed.transpose(1, 2).flatten(2)).mean(1))


class RootMeanSquare(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class DecoderLayer(nn.Module):
    """As in Llama: rotary positions, grouped queries (4 heads, 2 of keys and values), a gated feed-forward part."""

    def __init__(self, width: int = 64, heads: int = 4, kv_heads: int = 2) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.before, self.between = RootMeanSquare(width), RootMeanSquare(width)
        self.q, self.o = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(width, kv_heads * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)

    def attend(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q = self.rotated(self.q(x).view(batch, tokens, self.heads, self.size).transpose(1, 2))
        k = self.rotated(self.k(x).view(batch, tokens, self.kv_heads, self.size).transpose(1, 2))
        v = self.v(x).view(batch, tokens, self.kv_heads, self.size).transpose(1, 2)
        k, v = self.repeated(k), self.repeated(v)
        mixed = (q @ k.transpose(2, 3) / self.size**0.5).softmax(-1) @ v
        return self.o(mixed.transpose(1, 2).reshape(batch, tokens, -1))

    def rotated(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2])[:, None] * torch.ones(self.size)
        half = self.size // 2
        return x * angles.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angles.sin()

    def repeated(self, x: Tensor) -> Tensor:
        batch, heads, tokens, size = x.shape
        times = self.heads // self.kv_heads
        return x[:, :, None].expand(batch, heads, times, tokens, size).reshape(batch, heads * times, tokens, size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.before(x))
        y = self.between(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    """Token numbers (n, tokens) → scores of the next token (n, 32)."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, 64)
        self.layers = nn.ModuleList([DecoderLayer() for _ in range(layers)])
        self.norm = RootMeanSquare(64)
        self.head = nn.Linear(64, 32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))[:, -1]

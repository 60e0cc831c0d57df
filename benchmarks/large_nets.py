"""Networks of real size in plain torch with random weights: ResNet-50, ViT-B/16, BERT-base, a decoder of 124 million parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn

CLASSES = 1000


@dataclass(frozen=True)
class LargeNet:
    """build: size of an input → the network. size: pixels along an edge, or tokens. example: (samples, size) → inputs (n, …)."""

    build: Callable[[int], nn.Module]
    size: int
    example: Callable[[int, int], Tensor]


def images(count: int, size: int) -> Tensor:
    """(count, 3, size, size), float32."""
    return torch.randn(count, 3, size, size)


def tokens(count: int, size: int) -> Tensor:
    """(count, size), int64."""
    return torch.randint(0, 30_000, (count, size))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1, and the sum with what came in. He et al. 2016, arXiv:1512.03385; the stride at the 3×3, as is usual now."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        out = 4 * channels
        self.conv1, self.bn1 = nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out)
        self.down = nn.Sequential()
        if stride > 1 or channels_in != out:
            self.down = nn.Sequential(nn.Conv2d(channels_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, h, w) → (n, 4 channels, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + self.down(x))


class ResNet50(nn.Module):
    """26 million parameters, 4.1 billion MACs at 224²."""

    def __init__(self, _: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        blocks, width = list[nn.Module](), 64
        for stage, count in enumerate((3, 4, 6, 3)):
            for number in range(count):
                blocks.append(Bottleneck(width, 64 * 2**stage, 2 if stage and not number else 1))
                width = 256 * 2**stage
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) → (n, classes)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        logits: Tensor = self.fc(self.blocks(x).mean((2, 3)))
        return logits


class Attention(nn.Module):
    """Attention of several heads. causal: no token sees later ones."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, width) → the same."""
        q, k, v = (layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention and two linear layers. before: norms before what they belong to (ViT, GPT-2), not behind (BERT)."""

    def __init__(self, width: int, heads: int, *, before: bool, causal: bool) -> None:
        super().__init__()
        self.attention, self.before = Attention(width, heads, causal=causal), before
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, width) → the same."""
        if self.before:
            x = x + self.attention(self.norm1(x))
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed_forward(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        """(n, tokens, width) → the same."""
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out


def _blocks(width: int, heads: int, *, before: bool, causal: bool = False) -> nn.Sequential:
    return nn.Sequential(*(Block(width, heads, before=before, causal=causal) for _ in range(12)))


class VisionTransformer(nn.Module):
    """ViT-B/16: 86 million parameters. Dosovitskiy et al. 2021, arXiv:2010.11929."""

    def __init__(self, size: int, width: int = 768) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + (size // 16) ** 2, width))
        self.blocks, self.norm = _blocks(width, 12, before=True), nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, size, size) → (n, classes)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


class Bert(nn.Module):
    """BERT-base with a classifier: 109 million parameters. Devlin et al. 2019, arXiv:1810.04805."""

    def __init__(self, _: int, width: int = 768) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30_522, width), nn.Embedding(512, width)
        self.norm, self.blocks = nn.LayerNorm(width), _blocks(width, 12, before=False)
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Token numbers (n, tokens) → (n, 2)."""
        x = self.norm(self.words(x) + self.places(torch.arange(x.shape[1])))
        logits: Tensor = self.head(torch.tanh(self.pooler(self.blocks(x)[:, 0])))
        return logits


class Decoder(nn.Module):
    """GPT-2's smallest, its embedding the last layer's weight: 124 million parameters. Radford et al. 2019."""

    def __init__(self, _: int, width: int = 768) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50_257, width), nn.Embedding(1024, width)
        self.blocks, self.norm = _blocks(width, 12, before=True, causal=True), nn.LayerNorm(width)
        self.head = nn.Linear(width, 50_257, bias=False)
        self.head.weight = self.words.weight
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Token numbers (n, tokens) → scores of the next token (n, 50257)."""
        x = self.words(x) + self.places(torch.arange(x.shape[1]))
        scores: Tensor = self.head(self.norm(self.blocks(x))[:, -1])
        return scores


NETS: Mapping[str, LargeNet] = {
    "resnet50": LargeNet(ResNet50, 224, images),
    "vit": LargeNet(VisionTransformer, 224, images),
    "bert": LargeNet(Bert, 128, tokens),
    "decoder": LargeNet(Decoder, 128, tokens),
}

"""Small networks of the architectures that people compress: two blocks, 8 to 16 channels, random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from torch import Tensor, nn

from nets import DenseBlock, UNet, conv_bn, images, padded_residual, residual, shaken, vgg
from secateur.workloads.attention import opened


@dataclass(frozen=True)
class Architecture:
    """build: a network with random weights. inputs: (samples, seed) → what it takes."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], tuple[Tensor, ...]]

    def model(self) -> nn.Module:
        """One with random, trained-looking weights, the same at every call, in evaluation mode."""
        torch.manual_seed(0)
        return opened(shaken(self.build()))


def pictures(samples: int, seed: int) -> tuple[Tensor, ...]:
    return (images(samples, seed),)


def sequences(features: int, length: int = 6) -> Callable[[int, int], tuple[Tensor, ...]]:
    return lambda samples, seed: (
        torch.randn(samples, length, features, generator=torch.Generator().manual_seed(seed)),
    )


class ResNeXt(nn.Module):
    """Bottlenecks with grouped convolutions (arXiv:1611.05431)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 12)
        self.blocks = nn.ModuleList(
            [nn.Sequential(conv_bn(12, 16), conv_bn(16, 16, groups=4), nn.Conv2d(16, 12, 1)) for _ in range(2)]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(12) for _ in range(2)])
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, norm in zip(self.blocks, self.norms, strict=True):
            x = F.relu(x + norm(block(x)))
        return self.head(x.mean((2, 3)))


class ShuffleUnit(nn.Module):
    """Half of the channels go through convolutions; then both halves are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        depthwise = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.branch = nn.Sequential(
            conv_bn(half, half), depthwise, nn.BatchNorm2d(half), nn.Conv2d(half, half, 1), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        x = torch.cat([kept, self.branch(changed)], 1)
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleNet(nn.Module):
    """Version 2 (arXiv:1807.11164)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.units = conv_bn(3, 16), nn.Sequential(ShuffleUnit(16), ShuffleUnit(16))
        self.last, self.head = conv_bn(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.units(self.stem(x))).mean((2, 3)))


class Excited(nn.Module):
    """A residual block whose channels are weighed by a squeeze-and-excitation branch (arXiv:1709.01507)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = conv_bn(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.squeeze, self.excite = nn.Linear(width, 4), nn.Linear(4, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.two(self.one(x)))
        weight = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3))))))
        return F.relu(x + y * weight[:, :, None, None])


def se_resnet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 12), Excited(12), Excited(12), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)
    )


class Mixer(nn.Module):
    """MLP-Mixer (arXiv:2105.01601): linear layers over patches and over channels in turn."""

    def __init__(self, width: int = 16, patches: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 2, 2)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(5)])
        sizes = [patches, width, patches, width]
        self.mlps = nn.ModuleList([nn.Sequential(nn.Linear(n, 24), nn.GELU(), nn.Linear(24, n)) for n in sizes])
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        for number, (norm, mlp) in enumerate(zip(self.norms, self.mlps, strict=False)):
            y = norm(x)
            x = x + (mlp(y) if number % 2 else mlp(y.transpose(1, 2)).transpose(1, 2))
        return self.head(self.norms[-1](x).mean(1))


class Listening(nn.Module):
    """Convolutions over a spectrogram, then a recurrent layer over time."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv_bn(3, 8), conv_bn(8, 12))
        self.recurrent = recurrent
        self.hidden = nn.Linear(recurrent.hidden_size * (2 if recurrent.bidirectional else 1), 10)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs(x).mean(3).transpose(1, 2)
        return self.head(F.relu(self.hidden(self.recurrent(x)[0][:, -1])))


def conv_lstm() -> nn.Module:
    return Listening(nn.LSTM(12, 10, batch_first=True))


def conv_gru() -> nn.Module:
    return Listening(nn.GRU(12, 10, num_layers=2, bidirectional=True, batch_first=True))


def one_dimensional() -> nn.Module:
    """Dilated convolutions over a signal of 4 channels."""
    layers: list[nn.Module] = []
    for before, after, dilation in ((4, 12, 1), (12, 16, 2), (16, 12, 4)):
        layers += [nn.Conv1d(before, after, 3, padding=dilation, dilation=dilation), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(24, 5))


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 4, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.ConvTranspose2d(12, 3, 4, 2, 1), nn.Sigmoid(),
    )  # fmt: skip


class Siamese(nn.Module):
    """Two pictures go through the same layers and are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(conv_bn(3, 8), conv_bn(8, 12))
        self.compare, self.head = nn.Linear(24, 10), nn.Linear(10, 5)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        one, other = (self.shared(x).mean((2, 3)) for x in (one, other))
        return self.head(F.relu(self.compare(torch.cat([(one - other).abs(), one * other], 1))))


class SplitStage(nn.Module):
    """Half of the channels go through convolutions with a shortcut, and all parts are concatenated: YOLOv8's C2f."""

    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        self.before, self.after = conv_bn(channels_in, width), conv_bn(width + width // 2, width)
        self.inner = nn.Sequential(conv_bn(width // 2, width // 2), conv_bn(width // 2, width // 2))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.before(x).chunk(2, 1))
        parts.append(parts[-1] + self.inner(parts[-1]))
        return self.after(torch.cat(parts, 1))


class Detector(nn.Module):
    """A backbone, a neck that goes up again, and three heads with boxes and classes at strides 1, 2 and 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SplitStage(3, 8)
        self.down = nn.ModuleList([conv_bn(8, 12, stride=2), conv_bn(12, 16, stride=2)])
        self.stages = nn.ModuleList([SplitStage(12, 12), SplitStage(16, 16)])
        self.up = nn.ModuleList([SplitStage(28, 12), SplitStage(20, 8)])
        self.heads = nn.ModuleList([nn.Sequential(conv_bn(width, 8), nn.Conv2d(8, 4 + 2, 1)) for width in (8, 12, 16)])

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stem(x)
        middle = self.stages[0](self.down[0](fine))
        coarse = self.stages[1](self.down[1](middle))
        middle = self.up[0](torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], 1))
        fine = self.up[1](torch.cat([F.interpolate(middle, scale_factor=2.0), fine], 1))
        return [head(x) for head, x in zip(self.heads, (fine, middle, coarse), strict=True)]


class Encoder(nn.Module):
    """Torch's own transformer layers over 6 tokens of 8 features."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 16), nn.Linear(16, 5)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(x)).mean(1))


class CrossAttention(nn.Module):
    """Learnt queries look at tokens of another width, tokens first: `kdim` and `vdim`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 12)
        self.queries = nn.Parameter(torch.randn(3, 1, 16))
        self.attention = nn.MultiheadAttention(16, 4, kdim=12, vdim=12)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.relu(self.embed(x)).transpose(0, 1)
        queries = self.queries.expand(-1, x.shape[0], -1)
        return self.head(self.norm(queries + self.attention(queries, tokens, tokens)[0]).mean(0))


ZOO = {
    "VGG": Architecture(vgg, pictures),
    "CIFAR ResNet": Architecture(residual, pictures),
    "CIFAR ResNet, padded shortcuts": Architecture(padded_residual, pictures),
    "DenseNet": Architecture(DenseBlock, pictures),
    "U-Net": Architecture(UNet, pictures),
    "ResNeXt": Architecture(ResNeXt, pictures),
    "ShuffleNet": Architecture(ShuffleNet, pictures),
    "SE-ResNet": Architecture(se_resnet, pictures),
    "MLP-Mixer": Architecture(Mixer, pictures),
    "convolutions and LSTM": Architecture(conv_lstm, pictures),
    "convolutions and GRU, two layers, both directions": Architecture(conv_gru, pictures),
    "1-D convolutions": Architecture(
        one_dimensional, lambda n, seed: (torch.randn(n, 4, 16, generator=torch.Generator().manual_seed(seed)),)
    ),
    "autoencoder with transposed convolutions": Architecture(autoencoder, pictures),
    "two inputs, shared weights": Architecture(Siamese, lambda n, seed: (images(n, seed), images(n, seed + 100))),
    "detector with three heads": Architecture(Detector, pictures),
    "`nn.TransformerEncoder`": Architecture(Encoder, sequences(8)),
    "`nn.MultiheadAttention`, cross attention": Architecture(CrossAttention, sequences(8)),
}

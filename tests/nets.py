"""Small networks of the kinds that people compress, with random but trained-looking batch norms."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from torch import Tensor, nn

from secateur.workloads.resnet import ResNet


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random batch-norm statistics and affine parts: fresh ones (0, 1) would hide every mistake made with them."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None:
            layer.running_mean.copy_(0.3 * torch.randn(layer.running_mean.shape, generator=generator))
            layer.running_var.copy_(0.5 + torch.rand(layer.running_var.shape, generator=generator))
            if layer.affine:
                with torch.no_grad():
                    layer.bias.copy_(0.4 * torch.randn(layer.bias.shape, generator=generator))
    return model.eval()


def conv_bn(channels_in: int, channels_out: int, *, groups: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())


def residual() -> nn.Module:
    return ResNet((8, 16), 2, classes=5, padded_shortcut=False)


def padded_residual() -> nn.Module:
    """Option-A shortcuts: zero channels on both sides."""
    return ResNet((8, 16, 32), 1, classes=5, padded_shortcut=True)


class Separable(nn.Module):
    """Depthwise-separable blocks with a residual connection and hard-swish, as in MobileNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.Hardswish()
        )
        self.squeeze = nn.Conv2d(24, 8, 1)
        self.excite = nn.Conv2d(8, 24, 1)
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        scale = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = x + self.project(y * scale)
        return self.head(x.mean((2, 3)))


class DenseBlock(nn.Module):
    """Every layer reads all before it, batch norm first, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8 + 6 * i) for i in range(3)])
        self.convs = nn.ModuleList([nn.Conv2d(8 + 6 * i, 6, 3, 1, 1) for i in range(3)])
        self.last = nn.BatchNorm2d(26)
        self.head = nn.Linear(26, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        return self.head(F.relu(self.last(torch.cat(features, 1))).mean((2, 3)))


def vgg() -> nn.Module:
    """Plain convolutions, and a classifier on the flattened feature map: one channel is many inputs there."""
    return nn.Sequential(
        conv_bn(3, 8),
        nn.MaxPool2d(2),
        conv_bn(8, 12),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12 * 4, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )


class UNet(nn.Module):
    """An encoder and a decoder with a transposed convolution and a concatenated skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down = conv_bn(3, 8)
        self.bottom = conv_bn(8, 12, stride=2)
        self.up = nn.ConvTranspose2d(12, 8, 2, 2)
        self.norm = nn.BatchNorm2d(8)
        self.merge = conv_bn(16, 8)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        x = F.relu(self.norm(self.up(self.bottom(skip))))
        return self.head(self.merge(torch.cat([skip, x], 1))).mean((2, 3))


class TwoConvolutions(nn.Module):
    """The layers of the small networks below, which differ in forward()."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)


class Sigmoidal(TwoConvolutions):
    """Activations that do not map zero to zero: what reads a removed channel must not see their constant."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.two(torch.sigmoid(self.one(x)))).mean((2, 3)))


class HardCoded(TwoConvolutions):
    """The first group cannot be cut: its channel count stands in forward(). The second one can."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        x = x.view(-1, 8, 8 * 8).view(-1, 8, 8, 8)
        return self.head(F.relu(self.two(x)).mean((2, 3)))


class Normed(nn.Module):
    """A group norm and a layer norm: their statistics change when channels go."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.group_norm = nn.GroupNorm(1, 8)
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.hidden = nn.Linear(8, 8)
        self.layer_norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.two(F.relu(self.group_norm(self.one(x))))).mean((2, 3))
        return self.head(F.relu(self.layer_norm(self.hidden(x))))


class Grouped(nn.Module):
    """A grouped convolution that is not depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.one = conv_bn(3, 8)
        self.two = conv_bn(8, 8, groups=2)
        self.three = conv_bn(8, 8)
        self.four = conv_bn(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.four(self.three(self.two(self.one(x)))).mean((2, 3)))


NETWORKS = {
    "residual": residual,
    "option-A residual": padded_residual,
    "depthwise-separable": Separable,
    "dense block": DenseBlock,
    "VGG": vgg,
    "U-Net": UNet,
    "sigmoid": Sigmoidal,
}


def network(name: str) -> nn.Module:
    """One of them, seeded."""
    torch.manual_seed(0)
    return shaken(NETWORKS[name]())


def images(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))

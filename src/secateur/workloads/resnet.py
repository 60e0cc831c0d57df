"""Residual networks for small images, as in He et al. 2015, arXiv:1512.03385, section 4.2."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, and zero channels on both sides. It has no parameters."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (channels_out - channels_in) // 2
        self.after = channels_out - channels_in - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, h, w) → (n, channels_out, ⌈h/stride⌉, ⌈w/stride⌉)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, and a shortcut around them."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, *, padded_shortcut: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = (
                PaddedShortcut(channels_in, channels_out, stride)
                if padded_shortcut
                else nn.Sequential(
                    nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, h, w) → (n, channels_out, ⌈h/stride⌉, ⌈w/stride⌉)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, one stage of blocks per width (every stage but the first halves the image), global average, linear layer.

    widths: channels of the stages; blocks: blocks per stage; channels: of the input image.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: int,
        classes: int,
        channels: int = 3,
        *,
        padded_shortcut: bool,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before = widths[0]
        self.stages = len(widths)
        for number, width in enumerate(widths, start=1):
            layers = []
            for block in range(blocks):
                stride = 2 if number > 1 and block == 0 else 1
                layers.append(BasicBlock(before, width, stride, padded_shortcut=padded_shortcut))
                before = width
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self.linear = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) → (n, classes) logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def cifar_resnet(depth: int) -> ResNet:
    """ResNet-20, -32, -44 or -56 for CIFAR-10: widths 16, 32, 64, option-A shortcuts, 6n + 2 layers."""
    return ResNet((16, 32, 64), (depth - 2) // 6, classes=10, padded_shortcut=True)

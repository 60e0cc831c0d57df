"""A small detector of the YOLO kind: split blocks, features of three scales that are joined, a head without anchors for each scale.

Sources: Redmon et al. 2016 (YOLO), arXiv:1506.02640; Lin et al. 2017 (feature pyramids), arXiv:1612.03144; Tian et al. 2019 (FCOS),
arXiv:1904.01355: each cell says of which class the object around its centre is, and how far away its four sides are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn

STRIDES = (4, 8, 16)
"""Pixels between neighbouring cells of the three heads."""


class Convolution(nn.Sequential):
    """Convolution, batch norm, SiLU. (n, reads, h, w) → (n, writes, h / stride, w / stride)."""

    def __init__(self, reads: int, writes: int, size: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(reads, writes, size, stride, size // 2, bias=False), nn.BatchNorm2d(writes), nn.SiLU()
        )


class SplitBlock(nn.Module):
    """Half of the channels pass by a residual bottleneck; both halves and its output are joined. (n, reads, …) → (n, writes, …)."""

    def __init__(self, reads: int, writes: int) -> None:
        super().__init__()
        half = writes // 2
        self.open, self.close = Convolution(reads, writes, 1), Convolution(3 * half, writes, 1)
        self.first, self.second = Convolution(half, half), Convolution(half, half)

    def forward(self, x: Tensor) -> Tensor:
        """x: features."""
        passing, worked = self.open(x).chunk(2, 1)
        joined = torch.cat([passing, worked, worked + self.second(self.first(worked))], 1)
        return self.close(joined)  # type: ignore[no-any-return] # a module's call is untyped


class Detector(nn.Module):
    """(n, 3, size, size) → three tensors (n, classes + 4, size / stride, size / stride), finest first.

    Channels: logits of the classes, then the logarithms of the distances from the cell's centre to left, top, right and bottom, in
    strides. size: a multiple of 16.
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        """width: channels of the first layer."""
        super().__init__()
        w = width
        self.stem = Convolution(3, w, stride=2)
        self.fine = nn.Sequential(Convolution(w, 2 * w, stride=2), SplitBlock(2 * w, 2 * w))
        self.middle = nn.Sequential(Convolution(2 * w, 4 * w, stride=2), SplitBlock(4 * w, 4 * w))
        self.coarse = nn.Sequential(Convolution(4 * w, 6 * w, stride=2), SplitBlock(6 * w, 6 * w))
        self.join_middle, self.join_fine = SplitBlock(10 * w, 4 * w), SplitBlock(6 * w, 2 * w)
        self.heads = nn.ModuleList(
            nn.Sequential(Convolution(reads, 2 * w), nn.Conv2d(2 * w, classes + 4, 1))
            for reads in (2 * w, 4 * w, 6 * w)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions of the three heads."""
        fine = self.fine(self.stem(images))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.join_middle(torch.cat([middle, F.interpolate(coarse, scale_factor=2.0)], 1))
        fine = self.join_fine(torch.cat([fine, F.interpolate(middle, scale_factor=2.0)], 1))
        first, second, third = self.heads
        return first(fine), second(middle), third(coarse)

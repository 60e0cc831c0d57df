"""Plain networks for small images, as in Simonyan & Zisserman 2014, arXiv:1409.1556, table 1, with batch norm."""

from __future__ import annotations

from torch import Tensor, nn

STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth → convolutions of each stage."""
WIDTHS = (32, 64, 128, 256, 256)
"""Channels of the stages: half of the paper's."""


class Vgg(nn.Module):
    """Five stages of 3×3 convolutions with batch norm, each halving the image; then one linear layer, as Network Slimming has it.

    depth: 11, 13, 16 or 19, counted with the paper's three linear layers. The image is 32 pixels wide and high. Source of the one
    linear layer: Liu et al. 2017, arXiv:1708.06519, section 4.1.
    """

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        layers, before = list[nn.Module](), 3
        for count, width in zip(STAGES[depth], WIDTHS, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(before, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 32, 32) → (n, classes) logits."""
        logits: Tensor = self.linear(self.features(x).flatten(1))
        return logits

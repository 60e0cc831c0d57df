"""What stays of one layer is what was there, in its order."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from secateur.compression.removal import remove

NORMS = {
    "layer norm": lambda: nn.LayerNorm(24),
    "RMS norm": lambda: nn.RMSNorm(24),
    "batch norm": lambda: nn.BatchNorm2d(24),
    "group norm": lambda: nn.GroupNorm(1, 24),
    "instance norm": lambda: nn.InstanceNorm2d(24, affine=True),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_channels_of_a_norm_stay_in_order(norm):
    draw = random.Random(0)
    for count in range(1, 24):
        model = nn.Sequential(norm())
        model[0].weight.data = torch.arange(24.0)
        gone = draw.sample(range(24), count)
        remove(model, "0", "out", gone)
        assert model[0].weight.tolist() == [channel for channel in range(24) if channel not in gone]

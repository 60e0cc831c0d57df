"""Optimal Brain Surgeon for channels: what removing one costs if the layers that read it may make up for it.

With H = (G + λI)⁻¹ of a layer's Gram matrix G, removing the columns c of a channel, and moving all other weights W so that the
outputs change least, costs

    tr(W_c (H_cc)⁻¹ W_cᵀ)    and leaves    W ← W − W_c (H_cc)⁻¹ H_c,    H ← H − H_cᵀ (H_cc)⁻¹ H_c.

The cheapest channel goes first, again and again, so that the order is nested: the first n of it are what is removed when n channels
go, and it is computed once for all widths.

Source: Hassibi & Stork 1992; in groups Kurtić et al. 2023 (ZipLM), arXiv:2302.04089, after Frantar & Alistarh 2022,
arXiv:2208.11580. We sum over all layers that read a group, each cost as a share of the layer's own output energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-2
"""Of the mean diagonal: steadier in a long chain of updates than what a single solution needs."""


@dataclass(frozen=True)
class Reading:
    """How a layer reads a group. weight: (out, columns). gram: (columns, columns), mean of x xᵀ; a bias is a column like any other.

    blocks: (channels, most) columns that leave with each root channel, -1 where it has fewer.
    """

    weight: Tensor
    gram: Tensor
    blocks: Tensor


def losses_in_order(readings: Sequence[Reading], removable: Sequence[int], channels: int) -> Tensor:
    """Share of the readers' output energy that is lost by the time that a channel goes, greedily, after all cheaper ones.

    removable: the channels that may go; all others get what is lost without any of these. Returns (channels,), float32, ≥ 0.
    """
    layers = [_Layer(reading) for reading in readings]
    left = torch.tensor(removable)
    lost = torch.zeros(channels, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    while len(left):
        costs = torch.stack([layer.costs(left) for layer in layers]).sum(0)
        least = int(costs.argmin())
        channel = int(left[least])
        total = total + costs[least].clamp_min(0)
        lost[channel] = total
        for layer in layers:
            layer.remove(channel)
        left = torch.cat([left[:least], left[least + 1 :]])
    pinned = torch.ones(channels, dtype=torch.bool)
    pinned[list(removable)] = False
    lost[pinned] = total
    return lost.float()


class _Layer:
    """The weights and the inverse Gram matrix of one reader, after the removals so far."""

    def __init__(self, reading: Reading) -> None:
        self.weight, gram = reading.weight.double(), reading.gram.double()
        self.there = reading.blocks >= 0
        self.blocks = reading.blocks.clamp_min(0)
        scale = gram.diagonal().mean()
        ridge = RIDGE * (scale if scale > 0 else torch.ones_like(scale))
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram + ridge * torch.eye(len(gram))))
        energy = ((self.weight @ gram) * self.weight).sum()
        self.share = 1 / energy if energy > 0 else torch.zeros_like(energy)

    def costs(self, channels: Tensor) -> Tensor:
        """Of removing each of these channels next: (channels,)."""
        blocks, there = self.blocks[channels], self.there[channels]
        inverse = self.inverse[blocks[:, :, None], blocks[:, None, :]] * there[:, :, None] * there[:, None, :]
        inverse.diagonal(dim1=1, dim2=2)[~there] = 1.0  # padding, which meets weights of zero
        weights = (self.weight[:, blocks] * there).movedim(0, 2)  # (channels, block, out)
        costs: Tensor = (weights * torch.linalg.solve(inverse, weights)).sum((1, 2)) * self.share
        return costs

    def remove(self, channel: int) -> None:
        """Take a channel's columns out, all others making up for it."""
        block = self.blocks[channel][self.there[channel]]
        rows = self.inverse[block]  # (block, columns)
        moves = torch.linalg.solve(rows[:, block], rows)
        self.weight = self.weight - self.weight[:, block] @ moves
        self.inverse.addmm_(rows.mT, moves, alpha=-1)  # in place: half of the time went into copies
        self.weight[:, block] = 0.0
        self.inverse[block] = 0.0
        self.inverse[:, block] = 0.0

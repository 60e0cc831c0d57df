"""Blocks of weights become zero: n consecutive output channels by m consecutive inputs, at each place of the kernel.

What kernels of block formats skip (Narang et al. 2017, arXiv:1711.02782). Channels are counted once those that leave are gone;
blocks at the end may be smaller.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.compression.criteria import Unit
from secateur.compression.masks import mask_of
from secateur.compression.transforms.base import Stage
from secateur.compression.transforms.weights import LADDER, lowest, scored
from secateur.definition import GroupRule
from secateur.records import BLOCKS, PER_MILLE, Edit, Group, Level, Plan, Step, scored_as


class Blocks:
    """Zeros in blocks; a level is their shape and how many of a thousand stay, `4x1@300` say. See `Transform`."""

    name = BLOCKS
    stage: Stage = "pattern"
    unit: Unit = "weights"

    def levels(self, group: Group, rule: GroupRule, _multiple: int) -> tuple[Level, ...]:
        """The ladder's rungs within the rule's range, where some layer has room for two blocks."""
        tall, wide = map(int, rule.block.split("x"))
        room = any(len(own.rows) * own.inputs >= 2 * tall * wide for own in group.weights)
        least, most = rule.zeros
        return tuple(f"{rule.block}@{kept}" for kept in LADDER if room and least <= 1 - kept / PER_MILLE <= most)

    def steps(self, group: Group, edit: Edit, scores: Mapping[str, Tensor], before: Plan) -> tuple[Step, ...]:
        """The blocks of lowest mean score go, over all layers of the group."""
        tall, wide = map(int, str(edit.level).partition("@")[0].split("x"))
        layers, count = [], 0
        for weights, own, left in scored(group, scores[scored_as(edit.method)], before):
            numbers = _numbered(left, tall, wide) + count
            count = int(numbers.max()) + 1
            layers.append((weights, own, left, numbers))
        if not layers:
            return ()
        every = torch.cat([numbers[left] for _, _, left, numbers in layers])
        sums = torch.zeros(count).index_add(0, every, torch.cat([own[left] for _, own, left, _ in layers]))
        gone = lowest(sums / every.bincount(minlength=count), round((1 - edit.kept(group.width)) * count))
        return tuple(mask_of(weights, gone[numbers] & left) for weights, _, left, numbers in layers)


def _numbered(left: Tensor, tall: int, wide: int) -> Tensor:
    """The number of the block that each weight lies in, (rows, inputs, kernel). left: which of its rows and inputs are there."""
    rows, inputs, kernel = left.flatten(1).any(1), left.any(0).any(1), left.shape[2]
    down = ((rows.cumsum(0) - 1) // tall).clamp_min(0)
    across = ((inputs.cumsum(0) - 1) // wide).clamp_min(0)
    blocks = down[:, None] * (int(across.max()) + 1) + across
    return blocks[:, :, None] * kernel + torch.arange(kernel)

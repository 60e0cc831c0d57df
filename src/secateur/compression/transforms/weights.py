"""Single weights become zero: those of least score in the layers that write a group's channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from secateur.compression.criteria import Unit
from secateur.compression.masks import mask_of
from secateur.compression.transforms.base import Stage
from secateur.definition import GroupRule
from secateur.records import PER_MILLE, WEIGHTS, Edit, Group, Level, Plan, Step, scored_as
from secateur.records import Weights as LayerWeights

LADDER = (*range(950, 50, -50), 80, 60, 50, 40, 30, 20, 10)
"""Weights of a thousand that may stay: steps of a twentieth, and finer ones where few are left."""


class Weights:
    """Zeros anywhere; a level is how many of a thousand weights stay. See `Transform`."""

    name = WEIGHTS
    stage: Stage = "pattern"
    unit: Unit = "weights"

    def levels(self, group: Group, rule: GroupRule, _multiple: int) -> tuple[Level, ...]:
        """The ladder's rungs within the rule's range."""
        least, most = rule.zeros
        return tuple(kept for kept in LADDER if group.weights and least <= 1 - kept / PER_MILLE <= most)

    def steps(self, group: Group, edit: Edit, scores: Mapping[str, Tensor], before: Plan) -> tuple[Step, ...]:
        """The lowest scores of all layers of the group go, of the weights that are left; ties in their order."""
        layers = [*scored(group, scores[scored_as(edit.method)], before)]
        if not layers:
            return ()
        flat = torch.cat([torch.where(left, own, torch.inf).flatten() for _, own, left in layers])
        gone = round((1 - edit.kept(group.width)) * int(torch.isfinite(flat).sum()))
        zeros = torch.split(lowest(flat, gone), [own.numel() for _, own, _ in layers])
        return tuple(mask_of(weights, part.view_as(own)) for (weights, own, _), part in zip(layers, zeros, strict=True))


def scored(group: Group, scores: Tensor, before: Plan) -> Iterator[tuple[LayerWeights, Tensor, Tensor]]:
    """The weights of each layer, their scores and which of them an earlier stage leaves, both (rows, inputs, kernel).

    Layers of blocks that are left out are none. scores: of all weights of the group, layer by layer.
    """
    sizes = [len(weights.rows) * weights.inputs * weights.kernel for weights in group.weights]
    for weights, part in zip(group.weights, torch.split(scores, sizes), strict=True):
        if before.leaves_out(weights.layer):
            continue
        own = part.view(len(weights.rows), weights.inputs, weights.kernel)
        rows = torch.ones(len(weights.rows), dtype=torch.bool)
        lost = set(before.removed["out"].get(weights.layer, ()))
        rows[[i for i, row in enumerate(weights.rows) if row in lost]] = False
        inputs = torch.ones(weights.inputs, dtype=torch.bool)
        inputs[list(before.removed["in"].get(weights.layer, ()))] = False
        yield weights, own, (rows[:, None, None] & inputs[:, None]).expand_as(own)


def lowest(values: Tensor, count: int) -> Tensor:
    """(n,) of bool: the `count` lowest values, those that come first where they are equal."""
    if count == 0:
        return torch.zeros(len(values), dtype=torch.bool)
    limit = values.kthvalue(count).values
    chosen = values < limit
    ties = (values == limit).nonzero()[: count - int(chosen.sum()), 0]
    chosen[ties] = True
    return chosen

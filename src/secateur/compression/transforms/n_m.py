"""N:M patterns: of every M consecutive inputs of an output channel at most N weights stay, at each place of the kernel.

Sparse tensor cores run 2:4 (NVIDIA Ampere and later; Mishra et al. 2021, arXiv:2104.08378). Inputs are counted once those that
leave are gone; where their number is no multiple of M, the last window counts as filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor

from secateur.compression.criteria import Unit
from secateur.compression.masks import mask_of
from secateur.compression.transforms.base import Stage
from secateur.compression.transforms.weights import scored
from secateur.definition import GroupRule
from secateur.records import N_M, Edit, Group, Level, Plan, Step, scored_as


class NM:
    """Zeros in a pattern; a level is the pattern, `2:4` say. See `Transform`."""

    name = N_M
    stage: Stage = "pattern"
    unit: Unit = "weights"

    def levels(self, group: Group, rule: GroupRule, _multiple: int) -> tuple[Level, ...]:
        """The rule's patterns that are no wider than the inputs of some layer."""
        most = max((weights.inputs for weights in group.weights), default=0)
        fitting = [pattern for pattern in rule.patterns if int(pattern.split(":")[1]) <= most]
        return tuple(sorted(fitting, key=lambda pattern: -Edit(self.name, pattern, "").kept(group.width)))

    def steps(self, group: Group, edit: Edit, scores: Mapping[str, Tensor], before: Plan) -> tuple[Step, ...]:
        """The lowest scores of each window go, in layers whose inputs are as many as the pattern is wide."""
        kept, among = map(int, str(edit.level).split(":"))
        steps = []
        for weights, own, left in scored(group, scores[scored_as(edit.method)], before):
            if weights.inputs < among:
                continue
            inputs = left.any(0).any(1).nonzero()[:, 0]
            alive = own[:, inputs].movedim(1, 2)  # (rows, kernel, inputs)
            windows = F.pad(alive, (0, -alive.shape[2] % among), value=-torch.inf)
            windows = torch.unflatten(windows, 2, (-1, among))
            lowest = windows.argsort(dim=3, stable=True)[..., : among - kept]
            gone = torch.zeros_like(windows, dtype=torch.bool).scatter_(3, lowest, value=True)
            zeros = torch.zeros_like(own, dtype=torch.bool)
            zeros[:, inputs] = gone.flatten(2)[..., : len(inputs)].movedim(2, 1)
            steps.append(mask_of(weights, zeros & left))
        return tuple(steps)

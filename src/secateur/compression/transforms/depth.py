"""Whole residual blocks leave: what they read goes on in place of what they gave."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from secateur.compression.criteria import Unit
from secateur.compression.transforms.base import Stage
from secateur.definition import GroupRule
from secateur.records import DEPTH, Bypass, Edit, Group, Level, Plan, Step


class Depth:
    """Leaves a block out; the only level is 0: it does not stay. See `Transform`."""

    name = DEPTH
    stage: Stage = "structure"
    unit: Unit = "residual blocks"

    def levels(self, group: Group, _rule: GroupRule, _multiple: int) -> tuple[Level, ...]:
        """The one level, of a block."""
        return (0,) if group.block else ()

    def steps(self, group: Group, _edit: Edit, _scores: Mapping[str, Tensor], _before: Plan) -> tuple[Step, ...]:
        """The bypass."""
        return (Bypass(group.name),)

"""What a transform is: one kind of edit, its levels, and the steps that an edit becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, get_args

from torch import Tensor

from secateur.compression.criteria import Unit
from secateur.definition import GroupRule
from secateur.records import Edit, Group, Level, Plan, Step

Stage = Literal["structure", "pattern", "numbers"]
"""When a transform takes its turn: what a network consists of, which of its weights are zero, how numbers are written."""
STAGES: tuple[Stage, ...] = get_args(Stage)


class Transform(Protocol):
    """One kind of edit. A group has at most one edit of each stage. name: in `TRANSFORMS` and in edits."""

    name: str
    stage: Stage
    unit: Unit

    def levels(self, group: Group, rule: GroupRule, multiple: int, /) -> tuple[Level, ...]:
        """What the rule allows for a group, the mildest first; empty where it allows nothing.

        multiple: the rule's channel multiple, that of the device where the rule leaves it to the device.
        """
        ...

    def steps(self, group: Group, edit: Edit, scores: Mapping[str, Tensor], before: Plan, /) -> tuple[Step, ...]:
        """An edit as steps. scores: as in `Saliencies`, of this group. before: what earlier stages do, to any group."""
        ...

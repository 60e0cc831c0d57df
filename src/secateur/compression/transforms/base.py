"""What a transform is: one kind of edit, its levels, and the steps that an edit becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, get_args

from torch import Tensor

from secateur.definition import GroupRule
from secateur.records import Edit, Group, Step

Stage = Literal["structure", "pattern", "numbers"]
"""When a transform takes its turn: what a network consists of, which of its weights are zero, how numbers are written."""
STAGES: tuple[Stage, ...] = get_args(Stage)


class Transform(Protocol):
    """One kind of edit. A group has at most one edit of each stage. name: in `TRANSFORMS` and in edits."""

    name: str
    stage: Stage

    def levels(self, group: Group, rule: GroupRule, multiple: int) -> tuple[int, ...]:
        """What the rule allows for a group, the mildest first; empty where it allows nothing.

        multiple: the rule's channel multiple, that of the device where the rule leaves it to the device.
        """
        ...

    def removed(self, group: Group, level: int) -> float:
        """The share of the group that a level removes, in (0, 1]; it grows from level to level."""
        ...

    def steps(self, group: Group, edit: Edit, scores: Mapping[str, Tensor]) -> tuple[Step, ...]:
        """An edit as steps. scores: criterion → (width,), how much each channel of the group is worth."""
        ...

"""Channels leave: those of least saliency, wherever they are written and read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from secateur.compression.criteria import Unit
from secateur.compression.plan import united
from secateur.compression.transforms.base import Stage
from secateur.definition import GroupRule
from secateur.records import CHANNELS, Edit, Group, Level, Plan, Remove, Step


class Channels:
    """Removes channels of a group; a level is how many stay. See `Transform`."""

    name = CHANNELS
    stage: Stage = "structure"
    unit: Unit = "channels"

    def levels(self, group: Group, rule: GroupRule, multiple: int) -> tuple[Level, ...]:
        """Multiples within the rule's range, below the whole width, descending."""
        least_removed, most_removed = rule.removed
        floor = max(rule.at_least, group.width - len(group.removable), group.least)
        return tuple(
            width
            for width in reversed(range(multiple, group.width, multiple))
            if width >= floor and least_removed <= 1 - width / group.width <= most_removed
        )

    def steps(self, group: Group, edit: Edit, scores: Mapping[str, Tensor], _before: Plan) -> tuple[Step, ...]:
        """The removal of the channels with the lowest scores; ties go in channel order."""
        ranked = sorted(group.removable, key=lambda channel: (float(scores[edit.by][channel]), channel))
        return _removals(group, ranked[: group.width - int(edit.level)])


def without(groups: Sequence[Group], removed: Mapping[str, Collection[int]]) -> Plan:
    """The plan by which groups lose these root channels. removed: group name → root channels."""
    return united(step for group in groups for step in _removals(group, removed.get(group.name, ())))


def _removals(group: Group, roots: Collection[int]) -> tuple[Step, ...]:
    """What leaves the members of a group with its root channels; nothing leaves without any."""
    gone = set(roots)
    if not gone:
        return ()
    return tuple(
        Remove(
            member.module,
            member.side,
            tuple(index for root, index in zip(member.roots, member.indices, strict=True) if root in gone),
        )
        for member in group.members
    )

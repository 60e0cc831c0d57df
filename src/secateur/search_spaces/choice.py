"""What may be done to one group: a ladder of options, and the criteria by which each of them chooses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from secateur.compression.transforms import TRANSFORMS
from secateur.records import CHANNELS, Edit, Group


@dataclass(frozen=True)
class Option:
    """One rung of a ladder, whatever the criterion.

    levels: transform → level, in the order of their stages; empty where the group stays as it is. removed: the share of the
    group that leaves.
    """

    levels: tuple[tuple[str, int], ...] = ()
    removed: float = 0.0

    def edits(self, by: str) -> tuple[Edit, ...]:
        """What is done, where this criterion chooses."""
        return tuple(Edit(transform, level, by) for transform, level in self.levels)


UNTOUCHED = Option()


def rungs(group: Group, transform: str, levels: Iterable[int]) -> tuple[Option, ...]:
    """Levels of a transform as options."""
    return tuple(Option(((transform, level),), TRANSFORMS[transform].removed(group, level)) for level in levels)


@dataclass(frozen=True)
class Choice:
    """What may be done to one group.

    ladder: its options, the mildest first; the first is the untouched group, where it may stay so. multiple: of which the channel
    counts are.
    """

    group: Group
    methods: tuple[str, ...]
    ladder: tuple[Option, ...]
    multiple: int = 1

    @property
    def removed(self) -> tuple[float, float]:
        """Lowest and highest share of the group that can go."""
        return self.ladder[0].removed, self.ladder[-1].removed

    @property
    def whole(self) -> bool:
        """Whether the group may stay as it is."""
        return self.ladder[0] == UNTOUCHED

    @property
    def cuts(self) -> tuple[Option, ...]:
        """The options that do something."""
        return self.ladder[self.whole :]

    @property
    def widths(self) -> tuple[int, ...]:
        """How many channels each option leaves."""
        return tuple(dict(option.levels).get(CHANNELS, self.group.width) for option in self.ladder)

    def nearest(self, removed: float) -> Option:
        """The option closest to a removed share; of two equally close ones the milder."""
        return min(self.ladder, key=lambda option: abs(option.removed - removed))

    def position(self, edits: tuple[Edit, ...]) -> int:
        """Where on the ladder edits stand. Raises KeyError where they are none of its options'."""
        return self._positions[tuple((edit.transform, edit.level) for edit in edits)]

    @cached_property
    def _positions(self) -> dict[tuple[tuple[str, int], ...], int]:
        return {option.levels: position for position, option in enumerate(self.ladder)}

"""What may be done to one group: a ladder of options, and the methods that offer them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from secateur.records import CHANNELS, Edit, Group, Level, named


@dataclass(frozen=True)
class Option:
    """One rung of a ladder, whatever the criterion.

    transform, level: what is done; None where the group stays as it is. removed: the share of the group that goes.
    """

    transform: str | None = None
    level: Level = 0
    removed: float = 0.0

    def edits(self, method: str) -> tuple[Edit, ...]:
        """What is done, where this method chooses: one of the option's transform."""
        return () if self.transform is None else (Edit(self.transform, self.level, named(method)[1]),)


UNTOUCHED = Option()


def rungs(group: Group, transform: str, levels: Iterable[Level]) -> tuple[Option, ...]:
    """Levels of a transform as options."""
    return tuple(Option(transform, level, 1 - Edit(transform, level, "").kept(group.width)) for level in levels)


@dataclass(frozen=True)
class Choice:
    """What may be done to one group.

    methods: of one or more transforms. ladder: the untouched group, where it may stay so; then the options of each transform, its
    mildest first. multiple: of which the channel counts are.
    """

    group: Group
    methods: tuple[str, ...]
    ladder: tuple[Option, ...]
    multiple: int = 1

    @property
    def removed(self) -> tuple[float, float]:
        """Lowest and highest share of the group that can go."""
        shares = [option.removed for option in self.ladder]
        return min(shares), max(shares)

    @property
    def whole(self) -> bool:
        """Whether the group may stay as it is."""
        return self.ladder[0] == UNTOUCHED

    @property
    def widths(self) -> tuple[int, ...]:
        """How many channels may stay."""
        levels = {None: self.group.width} | {o.level: int(o.level) for o in self.ladder if o.transform == CHANNELS}
        return tuple(levels.values()) if self.whole else tuple(levels.values())[1:]

    @property
    def transforms(self) -> tuple[str, ...]:
        """What can be done to it, in the order of its ladder."""
        return tuple(dict.fromkeys(option.transform for option in self.ladder if option.transform is not None))

    def offering(self, methods: Sequence[str]) -> Choice:
        """The same with some of its methods."""
        transforms = {None, *(named(method)[0] for method in methods)}
        ladder = tuple(option for option in self.ladder if option.transform in transforms)
        return replace(self, methods=tuple(methods), ladder=ladder)

    def positions(self, method: str) -> tuple[int, ...]:
        """Where on the ladder the options of a method stand: the untouched group is one of each method."""
        return self._positions_by_transform[named(method)[0]]

    def cuts(self, method: str) -> tuple[Option, ...]:
        """The options of a method that do something."""
        return tuple(self.ladder[position] for position in self.positions(method))[self.whole :]

    def methods_of(self, transform: str) -> tuple[str, ...]:
        """Those of its methods that offer a transform."""
        return tuple(method for method in self.methods if named(method)[0] == transform)

    def nearest(self, removed: float, method: str) -> Option:
        """The option of a method closest to a removed share; of two equally close ones the milder."""
        options = [self.ladder[position] for position in self.positions(method)]
        return min(options, key=lambda option: abs(option.removed - removed))

    def mildest(self) -> tuple[Edit, ...]:
        """What has to be done at least."""
        return () if self.whole else self.ladder[0].edits(self.methods_of(self.transforms[0])[0])

    def smallest(self, transform: str | None = None) -> tuple[Edit, ...]:
        """The most that a transform can do; the first of the ladder, where the group has not that one."""
        method = self.methods_of(transform if transform in self.transforms else self.transforms[0])[0]
        return self.cuts(method)[-1].edits(method)

    def position(self, edits: tuple[Edit, ...]) -> int:
        """Where on the ladder edits stand. Raises KeyError where they are none of its options'."""
        return self._positions[(edits[0].transform, edits[0].level) if edits else (None, 0)]

    @cached_property
    def _positions(self) -> dict[tuple[str | None, Level], int]:
        return {(option.transform, option.level): position for position, option in enumerate(self.ladder)}

    @cached_property
    def _positions_by_transform(self) -> dict[str, tuple[int, ...]]:
        return {
            transform: tuple(i for i, option in enumerate(self.ladder) if option.transform in (None, transform))
            for transform in self.transforms
        }

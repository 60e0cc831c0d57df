"""A curve of bounded length over a training, whose length need not be known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MOST = 200
"""Points of a curve."""


@dataclass
class Curve:
    """Means of values over stretches of equal length; where points become too many, two become one.

    stretch: values of a point. seen: values in all. sums, counts: of each point's finite values; the last may not be full yet.
    """

    stretch: int = 1
    seen: int = 0
    sums: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def add(self, value: float, most: int = MOST) -> None:
        """Another value. most: points, at least 2."""
        if self.seen % self.stretch == 0 and len(self.sums) >= most:
            pairs = range(0, len(self.sums), 2)
            self.sums = [sum(self.sums[i : i + 2]) for i in pairs]
            self.counts = [sum(self.counts[i : i + 2]) for i in pairs]
            self.stretch *= 2
        if self.seen % self.stretch == 0:
            self.sums.append(0.0)
            self.counts.append(0)
        self.seen += 1
        if math.isfinite(value):
            self.sums[-1] += value
            self.counts[-1] += 1

    def points(self) -> list[tuple[int, float]]:
        """Each as (number of its last value from 1, mean); without those that have no finite value."""
        stretches = enumerate(zip(self.sums, self.counts, strict=True), start=1)
        return [(min(n * self.stretch, self.seen), total / count) for n, (total, count) in stretches if count]

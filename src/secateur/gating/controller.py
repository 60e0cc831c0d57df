"""Holding a budget over a stream: an integral controller turns the threshold of the gates."""

from __future__ import annotations

import math

MOST_OVER = 10.0
"""Budgets that a frame counts for at most."""


class Controller:
    """After each frame the threshold rises by `gain` times the share by which that frame went over the budget, or falls likewise.

    Its sum over the stream, and so the average overrun, stays bounded while the budget can be held at all: the threshold stops at
    `most`, where every gate is closed or open anyway. A frame counts for at most ten times the budget: one that something else on
    the machine delayed says little of the gates.
    """

    def __init__(self, budget: float, gain: float = 0.2, most: float = 10.0) -> None:
        """budget: cost of an average frame, in the unit of `observe` (MACs, seconds). gain: logits. most: logits.

        Raises ValueError where one of them is not positive.
        """
        if min(budget, gain, most) <= 0:
            raise ValueError(f"budget ({budget}), gain ({gain}) and most ({most}) must be positive")
        self.threshold = 0.0
        self._budget, self._gain, self._most = budget, gain, most

    def observe(self, cost: float) -> float:
        """Take note of what a frame has cost. Returns the threshold for the next one, in logits.

        Raises ValueError where the cost is not a number.
        """
        if not math.isfinite(cost):
            raise ValueError(f"the cost of a frame is {cost}")
        over = min(cost / self._budget, MOST_OVER) - 1
        self.threshold = max(-self._most, min(self._most, self.threshold + self._gain * over))
        return self.threshold

"""How long a run may wait for its device to become quiet: a share of its own time, whoever spends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CANDIDATE = 1.0
"""Seconds that one candidate of the search may wait at most."""
FINALIST = 10.0
"""Seconds that a finalist, or the dense model, may wait at most: their figures decide."""


@dataclass
class Loan:
    """What one measurement may wait, and what it has waited: seconds. The latter stands whatever becomes of the measurement."""

    seconds: float
    spent: float = 0.0

    @contextmanager
    def spending(self) -> Iterator[None]:
        """The time inside is waiting, also where it ends by an exception."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.spent += time.monotonic() - started


class WaitingBudget:
    """Of one run. The driver owns it: workers are lent an allowance with each job and say what they have spent.

    It grows with the time that the run spends on anything else, so that waiting never takes more than its share. With several
    workers it may be overdrawn by what they were lent at the same time; then nobody waits until it is made good.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        """share: of the time that the run takes without waiting."""
        self._share, self._clock, self._started = share, clock, clock()
        self.spent = 0.0
        """Seconds."""

    def allowance(self, most: float) -> float:
        """Seconds that one measurement may wait now."""
        own = self._clock() - self._started - self.spent
        return min(most, max(0.0, self._share * own - self.spent))

    @contextmanager
    def lent(self, most: float) -> Iterator[Loan]:
        """A loan for one measurement in this process; what was spent of it is charged at the end."""
        loan = Loan(self.allowance(most))
        try:
            yield loan
        finally:
            self.spend(loan.spent)

    def spend(self, seconds: float) -> None:
        """A measurement has waited so long."""
        self.spent += seconds

"""Latency on a noisy machine: alternating blocks of candidate and reference, the smallest run of each, the median ratio.

A plain mean of 100 runs spreads by 7 to 12 % between repeats on a shared host; the ratio of block minima by well under 1 %,
because both sides meet the same disturbances, the minimum forgets them and the median forgets the blocks that had no quiet run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VERSION = 2
"""Of this protocol: figures compare, and are kept, only within one version."""

Block = Callable[[int, int], Sequence[float]]
"""(number of the first run, runs) → seconds of each run."""


@dataclass(frozen=True)
class Protocol:
    """Runs per block, and when to stop: at least `least_rounds`, then once the interval is narrow enough, or at the most.

    width: of the 95 % interval of the median ratio, relative to it.
    """

    block: int = 10
    least_rounds: int = 8
    most_rounds: int = 30
    width: float = 0.02


@dataclass(frozen=True)
class Comparison:
    """ratio: candidate over reference, with its 95 % interval. runs, reference_runs: (rounds, block) seconds of single runs."""

    ratio: float
    interval: tuple[float, float]
    rounds: int
    runs: NDArray[np.float64]
    reference_runs: NDArray[np.float64]

    @property
    def drift(self) -> float:
        """How much slower the reference ended than it began: last over first third of its block minima, less one."""
        minima = self.reference_runs.min(axis=1)
        third = max(1, len(minima) // 3)
        return float(np.median(minima[-third:]) / np.median(minima[:third]) - 1)


def compare(candidate: Block, reference: Block, protocol: Protocol) -> Comparison:
    """Time both in alternating blocks. The first run of each is a warm-up and is not counted."""
    candidate(0, 1)
    reference(0, 1)
    runs: list[Sequence[float]] = []
    reference_runs: list[Sequence[float]] = []
    ratios: list[float] = []
    interval = (0.0, float("inf"))
    while len(ratios) < protocol.most_rounds:
        sides = [(reference, reference_runs), (candidate, runs)]
        if len(ratios) % 2:
            sides.reverse()  # whichever comes first meets a different cache
        for block, times in sides:
            times.append(block(len(ratios) * protocol.block, protocol.block))
        ratios.append(min(runs[-1]) / min(reference_runs[-1]))
        if len(ratios) >= protocol.least_rounds:
            interval = median_interval(np.array(ratios))
            if interval[1] - interval[0] <= protocol.width * float(np.median(ratios)):
                break
    return Comparison(float(np.median(ratios)), interval, len(ratios), np.array(runs), np.array(reference_runs))


def median_interval(values: NDArray[np.float64], resamples: int = 400) -> tuple[float, float]:
    """The bootstrap 95 % interval of the median (percentile method), seeded."""
    drawn = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(np.median(values[drawn], axis=1), [2.5, 97.5])
    return float(low), float(high)

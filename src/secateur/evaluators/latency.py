"""Latency on a noisy machine: alternating blocks of candidate and reference, the smallest run of each, the median ratio.

A plain mean of 100 runs spreads by 7 to 12 % between repeats on a shared host; the ratio of block minima by well under 1 %,
because both sides meet the same disturbances, the minimum forgets them and the median forgets the blocks that had no quiet run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """ratio: candidate over reference, with its 95 % interval. times: seconds of every single run of the candidate."""

    ratio: float
    interval: tuple[float, float]
    rounds: int
    runs: NDArray[np.float64]
    reference_runs: NDArray[np.float64]


def compare(
    candidate: Callable[[int], None],
    reference: Callable[[int], None],
    protocol: Protocol = Protocol(),  # frozen
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time both in alternating blocks. Both take the number of the run and do one run. clock: seconds.

    The first run of each is a warm-up and is not timed.
    """
    candidate(0)
    reference(0)
    times: dict[str, list[list[float]]] = {"candidate": [], "reference": []}
    ratios: list[float] = []
    interval = (0.0, float("inf"))
    while len(ratios) < protocol.most_rounds:
        sides = [("reference", reference), ("candidate", candidate)]
        if len(ratios) % 2:
            sides.reverse()  # whichever comes first meets a different cache
        for name, run in sides:
            times[name].append(_block(run, len(ratios) * protocol.block, protocol.block, clock))
        ratios.append(min(times["candidate"][-1]) / min(times["reference"][-1]))
        if len(ratios) >= protocol.least_rounds:
            interval = median_interval(np.array(ratios))
            if interval[1] - interval[0] <= protocol.width * float(np.median(ratios)):
                break
    return Comparison(
        float(np.median(ratios)),
        interval,
        len(ratios),
        np.array(times["candidate"]).ravel(),
        np.array(times["reference"]).ravel(),
    )


def _block(run: Callable[[int], None], first: int, count: int, clock: Callable[[], float]) -> list[float]:
    times = []
    for number in range(first, first + count):
        started = clock()
        run(number)
        times.append(clock() - started)
    return times


def median_interval(values: NDArray[np.float64], resamples: int = 400) -> tuple[float, float]:
    """The bootstrap 95 % interval of the median (percentile method), seeded."""
    drawn = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(np.median(values[drawn], axis=1), [2.5, 97.5])
    return float(low), float(high)

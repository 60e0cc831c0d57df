"""Latency on a noisy machine: alternating blocks of candidate and reference, the smallest run of each, the median ratio.

A plain mean of 100 runs spreads by 7 to 12 % between repeats on a shared host; the ratio of block minima by well under 1 %,
because both sides meet the same disturbances, the minimum forgets them and the median forgets the blocks that had no quiet run.

What lasts longer than a measurement it cannot forget: while a neighbour uses the same caches for some seconds, both models are 12 %
slower, and not by the same factor. The reference is the canary: rounds in which it takes longer than it is known to are set aside,
and others are made instead, as long as there is patience.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VERSION = 3
"""Of this protocol: figures compare, and are kept, only within one version."""

Block = Callable[[int, int], Sequence[float]]
"""(number of the first run, runs) → seconds of each run."""


@dataclass(frozen=True)
class Protocol:
    """Runs per block, and when to stop: at least `least_rounds`, then once the interval is narrow enough, or at the most.

    width: of the 95 % interval of the median ratio, relative to it. loud: a round counts where the reference is at most so much
    slower than it is known to be. patience: seconds of loud rounds (and `least_rounds` of them) after which all count. copies: how
    often each model is opened, the rounds taking them in turn: where its tensors come to lie decides some 0.3 % of its time.
    """

    block: int = 10
    least_rounds: int = 24
    most_rounds: int = 60
    width: float = 0.005
    copies: int = 4
    loud: float = 0.02
    patience: float = 10.0


@dataclass(frozen=True)
class Comparison:
    """ratio: candidate over reference, with its 95 % interval. runs, reference_runs: (rounds, block) seconds of single runs.

    rounds: those that count. disturbed: too few were quiet, so all count. usual: seconds of the reference, the median of its block
    minima. drift: how much slower the reference ended than it began, over all rounds.
    """

    ratio: float
    interval: tuple[float, float]
    rounds: int
    runs: NDArray[np.float64]
    reference_runs: NDArray[np.float64]
    disturbed: bool
    usual: float
    drift: float


def compare(
    candidate: Block,
    reference: Block,
    protocol: Protocol,
    usual: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time both in alternating blocks. The first run of each is a warm-up and is not counted.

    usual: what the reference is known to take (see `Comparison`).
    """
    candidate(0, 1)
    reference(0, 1)
    runs: list[Sequence[float]] = []
    reference_runs: list[Sequence[float]] = []
    seconds: list[float] = []
    while True:
        started = clock()
        sides = [(reference, reference_runs), (candidate, runs)]
        if len(seconds) % 2:
            sides.reverse()  # whichever comes first meets a different cache
        for block, times in sides:
            times.append(block(len(seconds) * protocol.block, protocol.block))
        seconds.append(clock() - started)
        if len(seconds) < protocol.least_rounds:
            continue
        minima = np.min(reference_runs, axis=1)
        quiet = minima <= min(usual, float(np.median(minima))) * (1 + protocol.loud)
        waited = float(np.sum(seconds, where=~quiet))
        disturbed = int(quiet.sum()) < protocol.least_rounds
        impatient = int((~quiet).sum()) >= protocol.least_rounds and waited > protocol.patience
        if disturbed and not impatient:
            continue
        counted = np.ones(len(seconds), bool) if disturbed else quiet
        ratios = (np.min(runs, axis=1) / minima)[counted]
        interval = median_interval(ratios, np.arange(len(seconds))[counted] % protocol.copies)
        narrow = interval[1] - interval[0] <= protocol.width * float(np.median(ratios))
        if narrow or impatient or len(ratios) >= protocol.most_rounds:
            break
    return Comparison(
        float(np.median(ratios)),
        interval,
        len(ratios),
        np.array(runs)[counted],
        np.array(reference_runs)[counted],
        disturbed,
        float(np.median(minima[counted])),
        _drift(minima),
    )


def _drift(minima: NDArray[np.float64]) -> float:
    """Last over first third of the reference's block minima, less one."""
    third = max(1, len(minima) // 3)
    return float(np.median(minima[-third:]) / np.median(minima[:third]) - 1)


def median_interval(
    values: NDArray[np.float64], copies: NDArray[np.int64] | None = None, resamples: int = 200
) -> tuple[float, float]:
    """The bootstrap 95 % interval of the median (percentile method), seeded.

    copies: which copy of the models each value comes from. Copies are drawn first, and then values within them: those of one copy
    resemble each other (cluster bootstrap, Davison and Hinkley 1997).
    """
    rng = np.random.default_rng(0)
    groups = [values] if copies is None else [values[copies == copy] for copy in np.unique(copies)]
    medians = [
        np.median(np.concatenate([rng.choice(group, len(group)) for group in (groups[i] for i in drawn)]))
        for drawn in rng.integers(0, len(groups), (resamples, len(groups)))
    ]
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)

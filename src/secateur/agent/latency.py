"""Latency on a noisy machine: alternating blocks of candidate and reference, the smallest run of each block, the ratio per copy.

A plain mean of 100 runs spreads by 7 to 12 % between repeats on a shared host; the ratio of block minima by well under 1 %,
because both sides meet the same disturbances and the minimum forgets them.

Where the tensors of an opened model lie in memory decides some 0.3 % of its time, so the rounds of one opened copy resemble each
other. Each model is opened several times; a copy's figure is the median of its rounds, and the interval is Student's t over the
copies, not over the rounds. How many copies and rounds there are is fixed beforehand: stopping once an interval is narrow makes it
too narrow. Whichever model runs first after a copy was opened meets colder caches (0.5 to 2 % where a run takes 0.1 ms): every copy
warms up first, and copies begin with one model and the other in turn, so that what is left of it cancels.

A disturbance that outlasts a measurement slows both models, and not by the same factor. The reference is the canary: it is known
how long it takes on a quiet device. Rounds in a disturbed stretch are replaced by others while the waiting allowance lasts. Whether
a stretch is disturbed is judged by the rounds before and after a round, never by the round itself: choosing rounds by their own
reference time would choose those in which the reference was lucky (2 % of bias on a loaded machine). What remains disturbed widens
the interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VERSION = 5
"""Of this protocol: figures compare, and are kept, only within one version."""

Array = NDArray[np.float64]
Block = Callable[[int, int], Sequence[float]]
"""(number of the first run, runs) → seconds of each run."""
Pair = tuple[Block, Block]
"""One opened copy of the candidate and one of the reference."""

LEVERAGE = 0.75
"""By how much a disturbance may change the ratio, as a share of how much more it slows the reference than what still counts as
quiet, in logarithms: a neighbour in the same caches made a reference 12 % slower and a candidate of half its time 19 %. A candidate
closer to the reference is changed by less, in proportion: what slows a model slows its equal as much."""
WARM_UP = 3
"""Runs of each model, not counted, whenever a copy's turn comes."""
TOLERATED = 0.06
"""A neighbour in the same caches slows a model by 12 % and more: half of that is never scatter."""
_NORMAL_90 = 1.2816
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Protocol:
    """How two models are timed: `copies` of each, `rounds` of each copy, a block of so many runs of each model in a round.

    loud: a round is disturbed where the reference, in the rounds around it, is slower by more than this share than on a quiet
    device, or by more than its own scatter explains. allowance: seconds that may be spent on rounds that replace disturbed ones.
    whole: a run is one pass over all batches, and its time their mean: for models whose work depends on what they are given.
    """

    block: int = 10
    copies: int = 8
    rounds: int = 4
    loud: float = 0.02
    allowance: float = 0.0
    whole: bool = False


@dataclass(frozen=True)
class Comparison:
    """ratio: candidate over reference, with its 95 % interval. runs, reference_runs: (rounds, block) seconds of single runs.

    rounds: those that count. copies: those that the interval rests on. disturbed: most rounds were, so all of them count. level:
    seconds of the reference, the median of its block minima. drift: how much slower the reference ended than it began, over all
    rounds. waited: seconds spent on rounds that replace others.
    """

    ratio: float
    interval: tuple[float, float]
    rounds: int
    copies: int
    runs: Array
    reference_runs: Array
    disturbed: bool
    level: float
    drift: float
    waited: float


@dataclass(frozen=True)
class _Round:
    copy: int
    runs: Sequence[float]
    reference_runs: Sequence[float]


def compare(
    opened: Callable[[int], Pair],
    protocol: Protocol,
    known: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time both models in alternating blocks, copy by copy.

    opened: copy number → that copy of both models; called again for a copy that gets further rounds. known: seconds of the
    reference on a quiet device, infinity where that is not known.
    """
    rounds: list[_Round] = []

    def measure(copy: int, count: int) -> None:
        candidate, reference = opened(copy)
        earlier = sum(entry.copy == copy for entry in rounds)
        candidate(0, WARM_UP), reference(0, WARM_UP)
        for turn in range(earlier, earlier + count):
            first = len(rounds) * protocol.block
            if (copy + turn) % 2:
                runs, reference_runs = candidate(first, protocol.block), reference(first, protocol.block)
            else:
                reference_runs, runs = reference(first, protocol.block), candidate(first, protocol.block)
            rounds.append(_Round(copy, runs, reference_runs))

    for copy in range(protocol.copies):
        measure(copy, protocol.rounds)
    started, waited = clock(), 0.0
    while waited < protocol.allowance and (lacking := _lacking(rounds, protocol, known)):
        for copy in lacking:
            measure(copy, 1)
            waited = clock() - started
            if waited >= protocol.allowance:
                break
    return _judged(rounds, protocol, known, waited)


def _judged(rounds: Sequence[_Round], protocol: Protocol, known: float, waited: float) -> Comparison:
    copies = np.array([entry.copy for entry in rounds])
    runs, reference_runs = (np.array([getattr(r, side) for r in rounds]) for side in ("runs", "reference_runs"))
    minima = reference_runs.min(axis=1)
    loud = tolerated(minima, protocol.loud)
    quiet = quiet_rounds(minima, known, loud)
    disturbed = 2 * int(quiet.sum()) < protocol.copies * protocol.rounds
    # A copy without a quiet round keeps all of its rounds: how far it lies from the others is part of the interval.
    without = ~np.isin(copies, copies[quiet])
    counted = np.ones(len(rounds), bool) if disturbed else quiet | without
    logs = np.log(runs.min(axis=1) / minima)[counted]
    level = float(np.median(minima[counted]))
    excess = max(0.0, math.log(level / known / (1 + loud))) if math.isfinite(known) else 0.0
    centre, half = log_interval(logs, copies[counted])
    half = math.hypot(half, LEVERAGE * excess * min(1.0, abs(centre) / math.log(2)))
    return Comparison(
        math.exp(centre),
        (math.exp(centre - half), math.exp(centre + half)),
        int(counted.sum()),
        len(np.unique(copies)),
        runs[counted],
        reference_runs[counted],
        disturbed,
        level,
        _drift(minima),
        waited,
    )


def tolerated(minima: Array, loud: float) -> float:
    """Share by which a reference may exceed its quiet time: `loud`, or three standard deviations of its scatter if more.

    minima: (rounds,) seconds of the reference. Times of 0.1 ms scatter by 2 % on a quiet device. The scatter is that of the lower
    half, where no disturbance reaches while most rounds are quiet.
    """
    middle, low = np.percentile(minima, [50, 10])
    return float(np.clip(3 * (middle / low - 1) / _NORMAL_90, loud, max(loud, TOLERATED)))


def quiet_rounds(minima: Array, known: float, loud: float) -> NDArray[np.bool_]:
    """Which rounds lie in a quiet stretch: the reference was not loud in the round before nor in the one after.

    minima: (rounds,) seconds of the reference, in order of time. Where the quiet level is not known it is at most their median.
    """
    loud_rounds = minima > min(known, float(np.median(minima))) * (1 + loud)
    before = np.concatenate([loud_rounds[1:2], loud_rounds[:-1]])  # the first and the last round have one neighbour
    after = np.concatenate([loud_rounds[1:], loud_rounds[-2:-1]])
    quiet: NDArray[np.bool_] = ~(before | after)
    return quiet


def _lacking(rounds: Sequence[_Round], protocol: Protocol, known: float) -> list[int]:
    """Copies that have fewer quiet rounds than they should."""
    minima = np.array([min(entry.reference_runs) for entry in rounds])
    quiet = quiet_rounds(minima, known, tolerated(minima, protocol.loud))
    counts = np.bincount(np.array([entry.copy for entry in rounds])[quiet], minlength=protocol.copies)
    return [copy for copy in range(protocol.copies) if counts[copy] < protocol.rounds]


def log_interval(logs: Array, copies: NDArray[np.int64]) -> tuple[float, float]:
    """Mean over copies of the median of each copy's values, and the half width of its 95 % interval: Student's t over copies.

    logs: (rounds,) logarithms of ratios. copies: (rounds,) which copy each comes from. One copy says nothing about others: its
    half width is infinite.
    """
    each = np.array([np.median(logs[copies == copy]) for copy in np.unique(copies)])
    if len(each) < 2:
        return float(each[0]), math.inf
    return float(each.mean()), t_quantile(len(each) - 1) * float(each.std(ddof=1)) / math.sqrt(len(each))


def t_quantile(freedom: int) -> float:
    """The .975 quantile of Student's t, to .2 %. freedom: degrees of freedom, at least 1."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.37 / freedom + 2.8 / freedom**2


def _drift(minima: Array) -> float:
    """Last over first third of the reference's block minima, less one."""
    third = max(1, len(minima) // 3)
    return float(np.median(minima[-third:]) / np.median(minima[:third]) - 1)

"""Differences of scores between two networks that were scored on the same samples, with their intervals.

Both networks see the same samples, so most of what makes a score uncertain (which samples were drawn) is in both and cancels: the
interval of the paired difference is far narrower than those of the two scores. `benchmarks/paired.py` measures how often the
intervals cover the true difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from secateur.errors import EvaluationFailed
from secateur.evaluators.sample_scores import Scores
from secateur.records import Direction, Measurement, gain

CONFIDENCE = 0.95
ONE_SIDED = 2 * CONFIDENCE - 1
"""Confidence of a two-sided interval each of whose ends is a one-sided 95 % bound."""
WORST = {"maximize": "one_sided_low", "minimize": "one_sided_high"}
"""Detail of a difference by the direction of the score: the worse end of its one-sided 95 % interval, in the unit of the score."""


@dataclass(frozen=True)
class Interval:
    """A figure and a two-sided interval for it."""

    value: float
    low: float
    high: float


def change(network: Scores, reference: Scores) -> Measurement:
    """The score of a network minus that of a reference on the same samples, with its 95 % interval.

    A detail is its worse end with 95 % confidence, see `WORST`. Raises EvaluationFailed where there are too few samples for an
    interval.
    """
    estimate, sided = difference(network, reference), difference(network, reference, ONE_SIDED)
    worst = sided.low if network.direction == "maximize" else sided.high
    interval = (estimate.low, estimate.high)
    details = {WORST[network.direction]: worst}
    return Measurement(estimate.value, "score", "measured", network.samples, interval, details=details)


def most_lost(changed: Measurement, direction: Direction) -> float:
    """By how much a network is worse at most, with 95 % confidence; below zero where it is better. changed: see `change`."""
    return gain(-changed.details[WORST[direction]], direction)


def difference(left: Scores, right: Scores, confidence: float = CONFIDENCE) -> Interval:
    """How much more `left` scores than `right` on the same samples, with a two-sided interval.

    Tango's for scores of 0 and 1, Student's t for other scores a sample, the bootstrap for one number for all samples.
    Raises EvaluationFailed where the samples differ or are too few for an interval.
    """
    if left.samples != right.samples or left.per_sample != right.per_sample:
        raise EvaluationFailed("two networks were not scored on the same samples")
    if not left.per_sample:
        return _bootstrap(left.values - right.values, left.samples, confidence)
    if _binary(left.values) and _binary(right.values):
        won, lost = (int(np.sum(a > b)) for a, b in ((left.values, right.values), (right.values, left.values)))
        return tango(won, lost, left.samples, confidence)
    return _student(left.values - right.values, confidence)


def interval(scores: Scores, confidence: float = CONFIDENCE) -> Interval:
    """A network's own score, with a two-sided interval.

    Wilson's for scores of 0 and 1, Student's t for others, the bootstrap for one number for all samples. Raises EvaluationFailed
    where there are too few samples, or resamples with a score.
    """
    if not scores.per_sample:
        return _bootstrap(scores.values, scores.samples, confidence)
    if not _binary(scores.values):
        return _student(scores.values, confidence)
    return wilson(scores.value, scores.samples, confidence)


def wilson(share: float, samples: int, confidence: float = CONFIDENCE) -> Interval:
    """The interval of a share. Source: Wilson 1927; never leaves [0, 1]."""
    z, n = float(ndtri((1 + confidence) / 2)), samples
    centre, half = share + z * z / (2 * n), z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n)))


def tango(won: int, lost: int, samples: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval for the difference of two shares that were counted on the same samples.

    won, lost: samples that only the left (only the right) of two networks gets right. Source: Tango 1998, Statistics in Medicine
    17:891-908; the nuisance parameter is the maximum-likelihood estimate under each difference, as given there.
    """
    from scipy.optimize import brentq  # slow to import

    z = float(ndtri((1 + confidence) / 2))
    value = (won - lost) / samples
    if won == lost == 0:
        end = z * z / (samples + z * z)
        return Interval(0.0, -end, end)

    def beyond(delta: float, sign: float) -> float:
        """Zero where the score statistic is `-sign` times the normal quantile."""
        a, b = 2.0 * samples, -won - lost + (2 * samples - won + lost) * delta
        q = (sqrt(max(b * b + 4 * a * lost * delta * (1 - delta), 0.0)) - b) / (2 * a)
        return won - lost - samples * delta + sign * z * sqrt(max(samples * (2 * q + delta * (1 - delta)), 0.0))

    inside = 1 - 1e-9  # where all samples differ one way, the variance at the difference itself is nought
    high = float(brentq(beyond, max(value, -inside), 1.0, args=(1.0,))) if value < 1 else 1.0
    low = float(brentq(beyond, -1.0, min(value, inside), args=(-1.0,))) if value > -1 else -1.0
    return Interval(value, low, high)


def least_excluded(samples: int, differing: float) -> float:
    """The smallest loss that the gate can exclude: of two equally good networks whose scores (0 or 1) differ on so many samples.

    differing: a share of the samples. Returns a share.
    """
    each = round(samples * differing / 2)
    return -tango(each, each, samples, ONE_SIDED).low


def _student(differences: NDArray[np.float64], confidence: float) -> Interval:
    count = len(differences)
    if count < 2:
        raise EvaluationFailed("one sample is too few for an interval: the data role needs more")
    return _around(float(differences.mean()), float(differences.std(ddof=1)) / sqrt(count), count, confidence)


def _bootstrap(values: NDArray[np.float64], samples: int, confidence: float) -> Interval:
    """values: the figure itself, then its bootstrap draws; draws without a figure are left out, and half of them must have one.

    Student's interval with the bootstrap's standard error, which is no better known than by so many draws: at 250 samples the
    percentiles of 200 draws cover less (93 to 94 %).
    """
    drawn = values[1:][np.isfinite(values[1:])]
    if len(drawn) < max(2.0, len(values[1:]) / 2) or samples < 2:
        raise EvaluationFailed("the score of most resampled data is not finite, so its interval is not known")
    return _around(float(values[0]), float(drawn.std(ddof=1)), min(samples, len(drawn)), confidence)


def _around(value: float, error: float, count: int, confidence: float) -> Interval:
    """count: of what the standard error was estimated from."""
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * error
    return Interval(value, value - half, value + half)


def _binary(values: NDArray[np.float64]) -> bool:
    return bool(np.all((values == 0) | (values == 1)))

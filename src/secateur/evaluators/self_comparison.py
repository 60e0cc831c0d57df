"""The dense model against itself (an A/A test): whether the latency intervals of a run hold what is known to be 1.

Such a measurement takes the same way as any other: copies of their own, alternating rounds, the same protocol. What its interval
lacks, the other intervals of the run lack as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from scipy.special import stdtrit

from secateur.records import Measurement

LATENCY = "latency"
_WIDENED = "widened_by"


def compared(dense: Sequence[Mapping[str, Measurement]]) -> Measurement | None:
    """The self-comparison that lies farthest from 1 for its width; None where none was measured.

    dense: the dense model's figures, once for each time that it was measured in the run; their latency is a ratio to itself. The
    interval is the one that all of them hold together with 95 % (Bonferroni): a run that looks more often is not more often noisy.
    """
    latencies = [figures[LATENCY] for figures in dense if LATENCY in figures]
    measured = [m for m in latencies if m.provenance == "measured" and m.interval is not None and m.interval[0] > 0]
    return max((_simultaneous(m, len(measured)) for m in measured), key=_distance, default=None)


def missing(comparison: Measurement | None) -> float:
    """By how much the interval of a self-comparison misses 1, as a logarithm; 0 where it holds 1."""
    if comparison is None:
        return 0.0
    low, high = comparison.bounds
    return max(0.0, math.log(low), -math.log(high))


def widened(measurements: Mapping[str, Measurement], by: float) -> Mapping[str, Measurement]:
    """Measurements whose latency interval is wider by so much (a logarithm) on each side; widening twice is widening once."""
    latency = measurements.get(LATENCY)
    if latency is None or latency.interval is None or latency.provenance != "measured":
        return measurements
    further = by - latency.details.get(_WIDENED, 0.0)
    if further <= 0:
        return measurements
    low, high = latency.interval
    interval = low * math.exp(-further), high * math.exp(further)
    return {**measurements, LATENCY: replace(latency, interval=interval, details={**latency.details, _WIDENED: by})}


def _simultaneous(measurement: Measurement, count: int) -> Measurement:
    """With the interval that `count` such measurements hold together."""
    freedom = max(1.0, measurement.details.get("copies", 2.0) - 1)
    factor = float(stdtrit(freedom, 1 - 0.025 / count) / stdtrit(freedom, 0.975))
    value, (low, high) = measurement.value, measurement.bounds
    return replace(measurement, interval=(value * (low / value) ** factor, value * (high / value) ** factor))


def _distance(measurement: Measurement) -> float:
    """Of the ratio from 1, in half widths of its interval."""
    low, high = measurement.bounds
    half = math.log(high / low) / 2
    return abs(math.log(measurement.value)) / half if half > 0 else math.inf

"""Giving up early: a candidate that cannot reach the front with 99 % confidence is not scored on the rest of the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.errors import WorkloadError
from secateur.evaluators.metrics import Context
from secateur.evaluators.scoring import View
from secateur.records import SCORE, Direction, Measurement, gain
from secateur.workloads.pytrees import length

CONFIDENCE = 0.99
Z = 2.326
"""One-sided normal quantile of that confidence."""
BOUNDED = {"accuracy", "latency", "size", "download", "macs", "parameters", "nonzero"}
"""Metrics that are known, or bounded, after a part of the data."""


@dataclass(frozen=True)
class Race:
    """Whether a candidate can still get past the points of the front. Without any it is evaluated in full.

    hurdles: their values by objective. share: of the data after which the question is asked. on_part: is given the figures that
    rest on that share.
    """

    objectives: Mapping[str, Direction]
    hurdles: Sequence[Mapping[str, float]] = ()
    share: float = 0.0
    on_part: Callable[[Mapping[str, Measurement]], None] | None = None

    @property
    def contested(self) -> bool:
        """Whether there is anything to ask, or anybody to tell."""
        return bool(self.hurdles) or self.on_part is not None

    @property
    def askable(self) -> bool:
        """Whether there are points to get past, in objectives that are known, or bounded, early."""
        return bool(self.hurdles) and "accuracy" in self.objectives and self.objectives.keys() <= BOUNDED

    def first(self, batches: int) -> int:
        """Batches after which to ask; all of them where nobody would ask."""
        split = 0 < self.share < 1 and (self.askable or self.on_part is not None)
        return max(1, math.ceil(self.share * batches)) if split else batches

    def hopeless(self, view: View, context: Context) -> str | None:
        """Why a network cannot get past the front, or None. context: of its outputs on the first samples, or on all."""
        if not self.askable:
            return None
        try:
            scores = view.workload.score(context.outputs, context.targets)
        except WorkloadError:  # a score of the whole set may have nothing to say of a part
            return None
        costs = view.figures(context, [name for name in self.objectives if name != "accuracy"])
        return self.lost(scores, length(view.samples.targets), costs)

    def lost(self, scores: Tensor, total: int, costs: Mapping[str, Measurement]) -> str | None:
        """Why there is no hope, or None. scores: (n,) of the samples so far, of `total`; costs: measured by now."""
        if scores.dim() == 0:
            return None  # one number for all samples says nothing about the others
        direction = self.objectives[SCORE]
        side = "below" if direction == "maximize" else "above"
        best = gain(upper_bound(gain(scores.float(), direction), total), direction)
        for hurdle in self.hurdles:
            cheaper = all(hurdle[name] <= measurement.bounds[0] for name, measurement in costs.items())
            if cheaper and gain(best - hurdle["accuracy"], direction) <= 0:
                return (
                    f"after {len(scores)} of {total} samples the score stays {side} {best:.3f} with {CONFIDENCE:.0%} confidence; "
                    f"the front has {hurdle['accuracy']:.3f} at no higher cost"
                )
        return None


def upper_bound(scores: Tensor, total: int) -> float:
    """One-sided 99 % bound of the mean over `total` samples of which (n,) are known: the rest is predicted, not guessed at.

    Half of Z² successes and failures are added first (Agresti & Coull 1998): shares near 0 and 1 need it.
    """
    seen, left = len(scores), total - len(scores)
    mean = float(scores.mean())
    if left <= 0:
        return mean
    smoothed = (float(scores.sum()) + Z**2 / 2) / (seen + Z**2)
    variance = max(float(scores.var(unbiased=False)), smoothed * (1 - smoothed) if 0 <= smoothed <= 1 else 0.0)
    unseen = max(mean, smoothed) + Z * math.sqrt(variance * (1 / seen + 1 / left))
    return (seen * mean + left * unseen) / total

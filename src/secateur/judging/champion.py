"""The gate of the registry: may the best finalist take the place of the version that serves?

Both are scored on the same samples and timed in turn, so that each demand is on a paired difference:

    score             the one-sided 95 % bound of the paired loss is at most the margin (non-inferiority)
    each slice        its loss is not shown to be larger than the slices' margin: the 95 % interval does not lie beyond it
    latency, size     not worse by more than the slack, the 95 % interval of a ratio that was measured taken into account

A slice is small: to exclude a loss there takes more samples than it has, so a slice refuses where the loss is there to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from secateur.evaluators.paired import change, most_lost
from secateur.evaluators.sample_scores import Scores
from secateur.formatting import amount
from secateur.records import GateCheck, Measurement, gain

Pair = tuple[Scores, Scores]
"""Of the finalist, and of the version, on the same samples."""
RATIO = "of the version's"


@dataclass(frozen=True)
class Margins:
    """What a finalist may be worse by: in score, in each slice, and as a share of each cost. unit: of the score."""

    score: float
    slices: float
    costs: float
    unit: str


def score_check(name: str, pair: Pair, margins: Margins) -> GateCheck:
    """Non-inferiority of the score. Raises EvaluationFailed where there are too few samples for an interval."""
    changed = _with_test(change(*pair), pair)
    passed = most_lost(changed, pair[0].direction) <= margins.score
    demand = f"a loss of more than {amount(margins.score, margins.unit)} is excluded with 95 % confidence"
    return GateCheck(name, changed, demand, margins.score, passed)


def slice_check(name: str, pair: Pair, margins: Margins) -> GateCheck:
    """That no loss beyond the slices' margin is shown. Raises EvaluationFailed as `score_check` does."""
    changed = change(*pair)
    least_lost = -max(gain(end, pair[0].direction) for end in changed.bounds)
    demand = f"no loss of more than {amount(margins.slices, margins.unit)} is shown"
    return GateCheck(f"slice '{name}'", changed, demand, margins.slices, least_lost <= margins.slices)


def cost_check(name: str, ratio: Measurement, margins: Margins) -> GateCheck:
    """That a cost is no more than the slack above the version's, beyond noise."""
    demand = f"not more than {margins.costs:.0%} above the version's, beyond noise"
    return GateCheck(name, ratio, demand, 1 + margins.costs, ratio.bounds[0] <= 1 + margins.costs)


def size_ratio(finalist: float, version: float) -> Measurement:
    """Two sizes in bytes as an exact ratio."""
    return Measurement(finalist / version, RATIO, "computed", details={"finalist": finalist, "version": version})


def _with_test(changed: Measurement, pair: Pair) -> Measurement:
    """A change of scores of 0 and 1 with the counts of McNemar's exact test (McNemar 1947) and its two-sided p."""
    left, right = pair[0].values, pair[1].values
    if not pair[0].per_sample or not set(np.unique([left, right])) <= {0.0, 1.0}:
        return changed
    from scipy.stats import binomtest  # slow to import

    won, lost = int((left > right).sum()), int((left < right).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return replace(changed, details={**changed.details, "won": won, "lost": lost, "mcnemar_p": p})

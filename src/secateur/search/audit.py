"""What a search has to answer for: did it beat the baselines, and did its score say what fine-tuning would give?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import kendalltau

from secateur.records import (
    BASELINES,
    SEARCH,
    ArmResult,
    Audit,
    Direction,
    Goal,
    Measurement,
    Recovered,
    Trial,
)
from secateur.search.front import as_costs, hypervolume, reference_point
from secateur.search.ledger import feasible, own

LEAST_PAIRS = 3
"""Finalists below which a rank correlation says nothing."""


def arm_results(
    trials: Sequence[Trial],
    objectives: Mapping[str, Direction],
    dense: Mapping[str, Measurement],
    goals: Sequence[Goal],
) -> tuple[ArmResult, ...]:
    """Hypervolume of the search and of each baseline, costs as shares of the dense model's."""
    reference = np.array(reference_point(objectives, dense, goals))
    scale = np.array([abs(dense[n].value) or 1.0 if d == "minimize" else 1.0 for n, d in objectives.items()])
    results = []
    for arm in (SEARCH, *BASELINES):
        members = [t for t in own(trials) if _arm(t) == arm]
        points = as_costs([t.evaluation for t in feasible(members, goals)], objectives)
        results.append(ArmResult(arm, len(members), hypervolume(points / scale, reference / scale)))
    return tuple(results)


def _arm(trial: Trial) -> str:
    return trial.arm if trial.arm in (*BASELINES, "dense") else SEARCH


def audit(finalists: Sequence[Recovered]) -> Audit:
    """Rank correlation, regret and shrinkage over the finalists that could be measured."""
    sound = [f for f in finalists if f.failure is None and "accuracy" in f.measurements and "accuracy" in f.searched]
    before = np.array([f.searched["accuracy"].value for f in sound])
    after = np.array([f.measurements["accuracy"].value for f in sound])
    kendall = regret = None
    if len(sound) >= LEAST_PAIRS:
        statistic = float(kendalltau(before, after).statistic)
        kendall = None if np.isnan(statistic) else statistic
        regret = float(after.max() - after[before.argmax()])
    return Audit(
        len(sound),
        kendall,
        regret,
        _mean(f.measurements["accuracy"].value - f.on_search.value for f in sound if f.on_search),
        _mean(f.test.value - f.measurements["accuracy"].value for f in sound if f.test),
    )


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(np.mean(listed)) if listed else None

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
    PredictionAudit,
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


def prediction_audit(trials: Sequence[Trial]) -> PredictionAudit:
    """Predicted latencies against measured ones, over the networks of a search that have both."""
    figures = [t.evaluation.measurements for t in trials if t.same_as is None]
    latencies = [found["latency"] for found in figures if "latency" in found]
    measured = [m for m in latencies if m.provenance == "measured" and "predicted_ratio" in m.details]
    screened = sum(m.provenance == "predicted" for m in latencies)
    if not measured:
        return PredictionAudit(0, None, None, None, None, screened)
    found = np.array([m.value for m in measured])
    foreseen = np.array([m.details["predicted_ratio"] for m in measured])
    covered = [m.details["predicted_low"] <= m.value <= m.details["predicted_high"] for m in measured]
    errors = np.abs(foreseen / found - 1)
    statistic = float(kendalltau(foreseen, found).statistic) if len(measured) >= LEAST_PAIRS else float("nan")
    return PredictionAudit(
        len(measured),
        float(errors.mean()),
        float((errors <= 0.1).mean()),
        float(np.mean(covered)),
        None if np.isnan(statistic) else statistic,
        screened,
    )


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(np.mean(listed)) if listed else None

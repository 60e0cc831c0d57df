"""What a search has to answer for: did it beat the baselines, and did its score say what fine-tuning would give?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

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
    Verdict,
    gain,
)
from secateur.search.front import as_costs, hypervolume, reference_point
from secateur.search.ledger import feasible, own

LEAST_PAIRS = 8
"""Pairs below which a rank correlation is not given: four cannot even reach p < .08."""
LEAST_RANKED = 3
"""Finalists below which the best of them says nothing about the search's order."""
DRAWS = 400
"""Draws from the search's networks, by which it is compared with a baseline at equal numbers."""


def arm_results(
    trials: Sequence[Trial],
    objectives: Mapping[str, Direction],
    dense: Mapping[str, Measurement],
    goals: Sequence[Goal],
) -> tuple[ArmResult, ...]:
    """Hypervolume of the search and of each baseline, costs as shares of the dense model's; the two compared at equal numbers."""
    reference = np.array(reference_point(objectives, dense, goals))
    scale = np.array([abs(dense[n].value) or 1.0 if d == "minimize" else 1.0 for n, d in objectives.items()])
    searched = [t for t in own(trials) if _arm(t) == SEARCH]

    def volume(members: Sequence[Trial]) -> float:
        points = as_costs([t.evaluation for t in feasible(members, goals)], objectives)
        return hypervolume(points / scale, reference / scale)

    results = [ArmResult(SEARCH, len(searched), volume(searched))]
    for arm in BASELINES:
        members = [t for t in own(trials) if _arm(t) == arm]
        results.append(ArmResult(arm, len(members), volume(members), _drawn(searched, len(members), volume)))
    return tuple(results)


def _drawn(trials: Sequence[Trial], count: int, volume: Callable[[Sequence[Trial]], float]) -> Measurement | None:
    """The hypervolume of so many of these trials: median of seeded draws, and the interval that holds 95 % of them."""
    if not 0 < count < len(trials):
        return None
    rng = np.random.default_rng(0)
    volumes = [volume([trials[i] for i in rng.choice(len(trials), count, replace=False)]) for _ in range(DRAWS)]
    low, median, high = np.quantile(volumes, [0.025, 0.5, 0.975]).tolist()
    return Measurement(median, "hypervolume", "computed", DRAWS, (low, high))


def _arm(trial: Trial) -> str:
    return trial.arm if trial.arm in (*BASELINES, "dense") else SEARCH


def audit(finalists: Sequence[Recovered], verdicts: Mapping[str, Verdict], direction: Direction = "maximize") -> Audit:
    """Rank correlation, regret and shrinkage over the finalists that could be measured. verdicts: by their names.

    direction: of the score.
    """
    sound = [f for f in finalists if f.failure is None and "accuracy" in f.measurements and "accuracy" in f.searched]
    before = np.array([f.searched["accuracy"].value for f in sound])
    after = np.array([f.measurements["accuracy"].value for f in sound])
    order = rank_correlation(before.tolist(), after.tolist())
    if len(sound) >= LEAST_RANKED:
        first, best = (int(np.argmax(gain(scores, direction))) for scores in (before, after))
        regret = abs(float(after[best] - after[first]))
    else:
        regret = None
    return Audit(
        len(sound),
        order.value if order else None,
        regret,
        _mean(f.measurements["accuracy"].value - f.on_search.value for f in sound if f.on_search),
        _mean(t.value - f.measurements["accuracy"].value for f in sound if (t := verdicts[f.name].test)),
        order.interval if order else None,
    )


def rank_correlation(before: Sequence[float], after: Sequence[float]) -> Measurement | None:
    """Kendall's tau-b with its 95 % interval; None below eight pairs or where one side has no order.

    Source of the interval: Fieller, Hartley & Pearson 1957, Biometrika 44:470-481: atanh(tau) has a variance of 0.437 / (n - 4). A
    perfect order is taken for one with a single pair reversed, or its interval would have no width.
    """
    pairs = len(before)
    if pairs < LEAST_PAIRS:
        return None

    from scipy.stats import kendalltau  # slow to import

    tau = float(kendalltau(before, after).statistic)
    if np.isnan(tau):
        return None
    most = 1 - 4 / (pairs * (pairs - 1))
    middle, half = np.arctanh(np.clip(tau, -most, most)), 1.96 * np.sqrt(0.437 / (pairs - 4))
    low, high = float(np.tanh(middle - half)), float(np.tanh(middle + half))
    return Measurement(tau, "Kendall's tau-b", "computed", pairs, (min(low, tau), max(high, tau)))


def prediction_audit(trials: Sequence[Trial]) -> PredictionAudit:
    """Predicted latencies against measured ones, over the networks of a search that have both.

    These are survivors: a network whose prediction took it out of the race was not measured, so an error that cost a good network
    its measurement is not seen here.
    """
    figures = [t.evaluation.measurements for t in trials if t.same_as is None]
    latencies = [m["latency"] for m in figures if "latency" in m]
    measured = [m for m in latencies if m.provenance == "measured" and "predicted_ratio" in m.details]
    screened = sum(m.provenance == "predicted" for m in latencies)
    if not measured:
        return PredictionAudit(0, None, None, None, None, screened)
    real = np.array([m.value for m in measured])
    predicted = np.array([m.details["predicted_ratio"] for m in measured])
    covered = [m.details["predicted_low"] <= m.value <= m.details["predicted_high"] for m in measured]
    errors = np.abs(predicted / real - 1)
    order = rank_correlation(predicted.tolist(), real.tolist())
    return PredictionAudit(
        len(measured),
        float(errors.mean()),
        float((errors <= 0.1).mean()),
        float(np.mean(covered)),
        order.value if order else None,
        screened,
        order.interval if order else None,
    )


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(np.mean(listed)) if listed else None

"""Budgets: typed goals as limits, what is known of a candidate before it is evaluated, and which limits no cut can reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from secateur.definition import ConstraintDefinition
from secateur.records import Evaluation, Goal, Measurement
from secateur.search.front import FOUND

LOOSER = 8
"""Times the allowed loss that a candidate may show before recovery, which brings most of it back."""
LEAST_DROP = 0.01
"""Share of the dense value that counts as the allowed loss where a goal allows none, so that the search has room."""
ROUNDING = 1e-3
"""Share of a forecast that is never held against a candidate."""
RECENT = 200
"""Latest networks that a forecast rests on, so that its cost does not grow with the search."""
MISSED = 0.00135
"""Chance that a network on the limit is rejected: that of three standard deviations, one-sided."""
LEAST_FITTED = 8
"""Measured networks before a forecast is trusted to reject anything."""


def goals_of(
    constraints: Mapping[str, ConstraintDefinition], dense: Mapping[str, Measurement], *, recovers: bool
) -> tuple[Goal, ...]:
    """The goals of a definition as limits. dense: the original's figures, of which relative goals are shares."""
    goals = []
    for metric, constraint in constraints.items():
        base = dense[metric].value
        for name, value in constraint.goals.items():
            limit, text = _LIMITS[name](metric, base, value)
            in_search = limit
            if name == "max_drop":
                in_search = base - _loose(value, base, constraint, recovers=recovers)
            elif name == "at_least":
                in_search = min(limit, base - _loose(max(0.0, base - limit), base, constraint, recovers=recovers))
            sense = "at_least" if name in ("max_drop", "at_least") else "at_most"
            drop = value if name == "max_drop" else None
            goals.append(Goal(metric, sense, limit, in_search, text, drop))  # type: ignore[arg-type] # one of the two
    return tuple(goals)


_LIMITS: Mapping[str, Callable[[str, float, float], tuple[float, str]]] = {
    "max_drop": lambda m, base, v: (base - v, f"{m} within {v:g} of the dense model"),
    "at_least": lambda m, _base, v: (v, f"{m} at least {v:g}"),
    "at_most": lambda m, _base, v: (v, f"{m} at most {v:g}"),
    "speedup_at_least": lambda m, base, v: (base / v, f"{m} at least {v:g} times less than the dense model's"),
    "smaller_by": lambda m, base, v: (base * (1 - v), f"{m} smaller by {v:.0%} or more"),
}


def _loose(drop: float, base: float, constraint: ConstraintDefinition, *, recovers: bool) -> float:
    """The loss that the search allows where `drop` is allowed in the end."""
    if constraint.before_recovery is not None:
        return constraint.before_recovery
    return LOOSER * max(drop, LEAST_DROP * abs(base)) if recovers else drop


def violations(goals: Sequence[Goal], measured: Mapping[str, Measurement], *, in_search: bool) -> dict[str, float]:
    """How far each goal is missed, as a share of its limit; ≤ 0 holds. A metric that is not there is missed altogether."""
    return {
        goal.text: goal.violation(measured[goal.metric].value, in_search=in_search) if goal.metric in measured else 1.0
        for goal in goals
    }


def holds(goals: Sequence[Goal], measured: Mapping[str, Measurement], *, in_search: bool) -> bool:
    """Whether all goals are kept."""
    return all(v <= 0 for v in violations(goals, measured, in_search=in_search).values())


@dataclass(frozen=True)
class Foreseen:
    """A figure known before evaluation, and how far it may be off: the half of its prediction interval, 0 where it is exact."""

    value: float
    slack: float


class Forecast:
    """Costs of a candidate before it is evaluated.

    MACs and parameters are exact. The others (size, latency) are linear in those two, fitted on what has been measured; the slack
    is that of a prediction interval: it grows where few networks were measured, and far from them. Screening only: what enters a
    front is always measured.
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[float, float, float]]] = {}
        self._fits: dict[str, _Line | None] = {}  # until something is learnt

    def learn(self, evaluation: Evaluation) -> None:
        """Take in a measured network; what was only predicted of it teaches nothing."""
        figures = evaluation.measurements
        if evaluation.failure is None and "macs" in figures and "parameters" in figures:
            self._fits.clear()
            for name in ("size", "latency"):
                if name in figures and figures[name].provenance in FOUND:
                    row = (figures["macs"].value, figures["parameters"].value, figures[name].value)
                    self._rows.setdefault(name, []).append(row)

    def of(self, metric: str, exact: Mapping[str, float]) -> Foreseen | None:
        """What the metric will be; None where nothing can be said yet. exact: `macs` and `parameters` of the candidate."""
        if metric in exact:
            return Foreseen(exact[metric], 0.0)
        if not {"macs", "parameters"} <= exact.keys():
            return None
        if metric not in self._fits:
            rows = self._rows.get(metric, [])[-RECENT:]
            self._fits[metric] = _Line(rows) if len(rows) >= LEAST_FITTED else None
        fit = self._fits[metric]
        return None if fit is None else fit.at(exact["macs"], exact["parameters"])

    def rejects(self, goals: Sequence[Goal], exact: Mapping[str, float]) -> tuple[Goal, Foreseen] | None:
        """The first goal on a cost that the candidate cannot keep, with what is foreseen."""
        for goal in goals:
            foreseen = self.of(goal.metric, exact) if goal.sense == "at_most" else None
            if foreseen is not None and foreseen.value - foreseen.slack > goal.limit_in_search:
                return goal, foreseen
        return None


class _Line:
    """Least squares on MACs, parameters and one, with the interval of a new observation."""

    def __init__(self, rows: Sequence[tuple[float, float, float]]) -> None:
        table = np.array(rows)
        self._scale = np.array([*np.maximum(table[:, :2].max(0), 1.0), 1.0])
        features = np.column_stack([table[:, :2], np.ones(len(table))]) / self._scale
        self._weights, _, rank, _ = np.linalg.lstsq(features, table[:, 2], rcond=None)
        self._inverse = np.linalg.pinv(features.T @ features)
        freedom = len(table) - int(rank)
        residuals = table[:, 2] - features @ self._weights
        self._spread = float(t.ppf(1 - MISSED, freedom)) * float(np.sqrt(residuals @ residuals / freedom))

    def at(self, macs: float, parameters: float) -> Foreseen:
        """The figure of a network, and its slack."""
        point = np.array([macs, parameters, 1.0]) / self._scale
        value = float(point @ self._weights)
        leverage = float(point @ self._inverse @ point)
        return Foreseen(value, self._spread * float(np.sqrt(1 + leverage)) + ROUNDING * abs(value))


def unreachable(goals: Sequence[Goal], smallest: Mapping[str, Measurement]) -> list[tuple[Goal, float]]:
    """Goals on a cost that even the smallest network of the space misses beyond noise, with the nearest value it reaches."""
    return [
        (goal, smallest[goal.metric].value)
        for goal in goals
        if goal.sense == "at_most" and goal.metric in smallest and smallest[goal.metric].bounds[0] > goal.limit
    ]

"""Costs of a candidate before it is evaluated: exact where they are computed, fitted on measured networks elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from secateur.records import Evaluation, Goal
from secateur.search.front import KNOWN

ROUNDING = 1e-3
"""Share of a forecast by which a candidate may miss a limit without being rejected."""
RECENT = 200
"""Latest networks that a forecast rests on, so that its cost does not grow with the search."""
MISSED = 0.00135
"""Chance that a network on the limit is rejected: that of three standard deviations, one-sided."""
FEATURES: Mapping[str, tuple[str, ...]] = {
    "size": ("macs", "parameters"),
    "latency": ("macs", "parameters"),
    "download": ("nonzero",),
}
"""What a cost is linear in, nearly."""
LEAST_FITTED = 8
"""Measured networks before a forecast is trusted to reject anything."""


@dataclass(frozen=True)
class Foreseen:
    """A figure known before evaluation, and how far it may be off: the half of its prediction interval, 0 where it is exact."""

    value: float
    slack: float


class Forecast:
    """Costs of a candidate before it is evaluated.

    MACs, parameters and those that are not zero are exact. The others are linear in some of those (`FEATURES`), fitted on what has
    been measured; the slack is that of a prediction interval: it grows where few networks were measured, and far from them.
    Screening only: what enters a front is always measured.
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[float, ...]]] = {}
        self._fits: dict[str, _Line | None] = {}  # until something is learnt

    def learn(self, evaluation: Evaluation) -> None:
        """Take in a measured network; what was only predicted of it teaches nothing."""
        figures = evaluation.measurements
        if evaluation.failure is None and "macs" in figures and "parameters" in figures:
            self._fits.clear()
            exact = {"nonzero": figures["parameters"], **figures}  # the same where nothing is masked
            for name, features in FEATURES.items():
                if name in figures and figures[name].provenance in KNOWN:
                    row = (*(exact[feature].value for feature in features), figures[name].value)
                    self._rows.setdefault(name, []).append(row)

    def of(self, metric: str, exact: Mapping[str, float]) -> Foreseen | None:
        """What the metric will be; None where nothing can be said yet.

        exact: `macs`, `parameters` and `nonzero` of the candidate.
        """
        if metric in exact:
            return Foreseen(exact[metric], 0.0)
        if metric not in FEATURES or not exact.keys() >= set(FEATURES[metric]):
            return None
        if metric not in self._fits:
            rows = self._rows.get(metric, [])[-RECENT:]
            self._fits[metric] = _Line(rows) if len(rows) >= LEAST_FITTED else None
        fit = self._fits[metric]
        return None if fit is None else fit.at([exact[feature] for feature in FEATURES[metric]])

    def rejects(self, goals: Sequence[Goal], exact: Mapping[str, float]) -> tuple[Goal, Foreseen] | None:
        """The first goal on a cost that the candidate cannot keep, with what is foreseen."""
        for goal in goals:
            foreseen = self.of(goal.metric, exact) if goal.sense == "at_most" else None
            if foreseen is not None and foreseen.value - foreseen.slack > goal.limit_in_search:
                return goal, foreseen
        return None


class _Line:
    """Least squares on a metric's features and one, with the interval of a new observation."""

    def __init__(self, rows: Sequence[tuple[float, ...]]) -> None:
        table = np.array(rows)
        self._scale = np.array([*np.maximum(table[:, :-1].max(0), 1.0), 1.0])
        features = np.column_stack([table[:, :-1], np.ones(len(table))]) / self._scale
        self._weights, _, rank, _ = np.linalg.lstsq(features, table[:, -1], rcond=None)
        self._inverse = np.linalg.pinv(features.T @ features)
        freedom = len(table) - int(rank)
        residuals = table[:, -1] - features @ self._weights
        self._spread = float(stdtrit(freedom, 1 - MISSED)) * float(np.sqrt(residuals @ residuals / freedom))

    def at(self, features: Sequence[float]) -> Foreseen:
        """The figure of a network, and its slack."""
        point = np.array([*features, 1.0]) / self._scale
        value = float(point @ self._weights)
        leverage = float(point @ self._inverse @ point)
        return Foreseen(value, self._spread * float(np.sqrt(1 + leverage)) + ROUNDING * abs(value))

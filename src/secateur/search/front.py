"""Dominance beyond measurement noise, hypervolume, and the choices that rest on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.records import SCORE, Direction, Evaluation, Goal, Measurement, Provenance, gain

KNOWN: tuple[Provenance, ...] = ("measured", "computed")
"""Provenances of what a front is made of."""
Objectives = Mapping[str, Direction]
Points = NDArray[np.float64]
Better = Callable[[Evaluation, Evaluation, str], bool]
"""Whether the first of two evaluations beats the second in a metric, beyond noise."""


def as_costs(evaluations: Sequence[Evaluation], objectives: Objectives) -> Points:
    """One row per evaluation, one column per objective, all to be minimised."""
    rows = [[_cost(e.measurements[name], direction)[1] for name, direction in objectives.items()] for e in evaluations]
    return np.array(rows, float).reshape(len(evaluations), len(objectives))


def _cost(measurement: Measurement, direction: Direction) -> tuple[float, float, float]:
    """Low end, value and high end of a figure, turned so that less is better."""
    low, high = measurement.bounds
    return (low, measurement.value, high) if direction == "minimize" else (-high, -measurement.value, -low)


def clearly_better(left: Measurement, right: Measurement, direction: Direction) -> bool:
    """Whether one figure beats another beyond noise: the 95 % interval of their difference does not contain zero.

    For figures that were measured independently; exact ones have no noise. Two scores of the same samples are not independent: then
    the rule is stricter than it says (`secateur.evaluators.paired` compares them sample by sample). Source: the interval of a
    difference from those of its parts is MOVER's, Zou & Donner 2008, Statistics in Medicine 27:1693-1702.
    """
    _, left_value, left_high = _cost(left, direction)
    right_low, right_value, _ = _cost(right, direction)
    return right_value - left_value > float(np.hypot(left_high - left_value, right_value - right_low))


def dominates(left: Evaluation, right: Evaluation, objectives: Objectives, better: Better | None = None) -> bool:
    """At least as good in every objective, and better beyond noise in one of them. better: other than `clearly_better`."""

    def beats(name: str) -> bool:
        if better is not None:
            return better(left, right, name)
        return clearly_better(left.measurements[name], right.measurements[name], objectives[name])

    costs = ((_cost(e.measurements[n], d)[1] for e in (left, right)) for n, d in objectives.items())
    return all(one <= other for one, other in costs) and any(map(beats, objectives))


def front(evaluations: Sequence[Evaluation], objectives: Objectives, better: Better | None = None) -> list[Evaluation]:
    """The evaluations that none of the others dominates, in their order. Failed ones never belong.

    better: what counts as better beyond noise, other than `clearly_better`. A prediction, or a time on an emulated device, is no
    figure of a front: an evaluation that has such an objective is left out.
    """
    sound = [e for e in evaluations if e.complete and all(_counts(e, name) for name in objectives)]
    return [e for e in sound if not any(dominates(other, e, objectives, better) for other in sound if other is not e)]


def _counts(evaluation: Evaluation, name: str) -> bool:
    measurement = evaluation.measurements.get(name)
    return measurement is not None and not np.isnan(measurement.value) and measurement.provenance in KNOWN


def hypervolume(points: Points, reference: NDArray[np.float64]) -> float:
    """Volume that the points dominate below the reference point. points: (n, m), to be minimised; reference: (m,).

    Exact, by slicing along the last objective (Zitzler 1999); meant for fronts of tens of points and up to five objectives.
    """
    points = points[np.all(points < reference, axis=1)]
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(reference[0] - points[:, 0].min())
    points = points[points[:, -1].argsort(kind="stable")]
    edges = np.append(points[1:, -1], reference[-1])
    volume = 0.0
    for i, (point, edge) in enumerate(zip(points, edges, strict=True)):
        if edge > point[-1]:
            volume += (edge - point[-1]) * hypervolume(_minimal(points[: i + 1, :-1]), reference[:-1])
    return float(volume)


def _minimal(points: Points) -> Points:
    """Points that no other one weakly dominates; of equal ones the first."""
    worse = np.all(points[None] <= points[:, None], axis=2)  # worse[i, j]: j is at least as good as i everywhere
    equal = worse & worse.T
    dominated = np.any(worse & ~equal, axis=1) | np.any(np.tril(equal, -1), axis=1)
    minimal: Points = points[~dominated]
    return minimal


def reference_point(objectives: Objectives, dense: Mapping[str, Measurement], goals: Sequence[Goal]) -> list[float]:
    """The worst corner that counts, as costs: the dense model's own costs, and the largest loss that the search allows.

    A score, and what else is maximised, may lose half of the dense value where it has no goal; where the dense cost is 0, the
    reference is 1.
    """
    corner = []
    for name, direction in objectives.items():
        value = dense[name].value
        if direction == "minimize" and name != SCORE:
            corner.append(value if value > 0 else 1.0)
        else:
            corner.append(-floor(name, direction, dense, goals))
    return corner


def floor(metric: str, direction: Direction, dense: Mapping[str, Measurement], goals: Sequence[Goal]) -> float:
    """The lowest gain of a score, or of what is maximised, that counts in the search: its goals', else half of it is lost."""
    value, sense = dense[metric].value, "at_least" if direction == "maximize" else "at_most"
    floors = [gain(g.limit_in_search, direction) for g in goals if g.metric == metric and g.sense == sense]
    return max(floors, default=gain(value, direction) - abs(value) / 2)


class Archive:
    """The points that no other one weakly dominates, kept up to date one by one: an addition costs as much as the front is long."""

    def __init__(self, objectives: Objectives, reference: NDArray[np.float64]) -> None:
        self.objectives, self.reference = dict(objectives), reference
        self.points: Points = np.empty((0, len(objectives)))
        self.values: tuple[dict[str, float], ...] = ()

    def add(self, evaluation: Evaluation) -> bool:
        """Take in a point. Whether it adds hypervolume: it lies within the reference point, and nothing is as good everywhere."""
        point = as_costs([evaluation], self.objectives)[0]
        if not np.all(point < self.reference) or np.any(np.all(self.points <= point, axis=1)):
            return False
        stays = ~np.all(point <= self.points, axis=1)
        figures = {name: evaluation.measurements[name].value for name in self.objectives}
        self.points = np.vstack([self.points[stays], point])
        self.values = (*(v for v, stay in zip(self.values, stays, strict=True) if stay), figures)
        return True


def ranks(points: Points) -> NDArray[np.int64]:
    """Non-dominated rank of each point, 0 for the front. Source: Deb et al. 2002 (NSGA-II)."""
    rank = np.full(len(points), -1)
    level = 0
    while np.any(rank < 0):
        rest = np.flatnonzero(rank < 0)
        costs = points[rest]
        better = np.all(costs[None] <= costs[:, None], axis=2) & np.any(costs[None] < costs[:, None], axis=2)
        rank[rest[~better.any(1)]] = level
        level += 1
    return rank


def choose(points: Points, reference: NDArray[np.float64], count: int) -> list[int]:
    """Up to `count` points, each time the one that adds the most hypervolume; points that add none come last, in order."""
    chosen: list[int] = []
    rest = list(range(len(points)))
    while rest and len(chosen) < count:
        gains = [hypervolume(points[[*chosen, i]], reference) for i in rest]
        chosen.append(rest.pop(int(np.argmax(gains))))
    return chosen


def knee(
    evaluations: Sequence[Evaluation],
    dense: Mapping[str, Measurement],
    objectives: Objectives,
    allowed: Mapping[str, float],
) -> int:
    """The evaluation closest to the ideal one that costs nothing and loses nothing.

    Costs count as shares of the dense model's; losses against the dense model as shares of what is `allowed`, or of
    the dense value where nothing is said. So the choice does not depend on which other points happen to be on the front.
    """
    distances = []
    for evaluation in evaluations:
        shares = []
        for name, direction in objectives.items():
            value, base = evaluation.measurements[name].value, dense[name].value
            if direction == "minimize" and name != SCORE:
                shares.append(value / base if base else value)
            else:
                shares.append(max(0.0, gain(base - value, direction)) / (allowed.get(name) or abs(base) or 1.0))
        distances.append(float(np.linalg.norm(shares)))
    return int(np.argmin(distances))

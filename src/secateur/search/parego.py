"""Several objectives as one number, for optimisers that know only one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.records import Direction, Evaluation, Goal, Measurement
from secateur.search.front import Points, as_costs, reference_point
from secateur.search.goals import violations as missed_by

RHO = 0.05
"""Weight of the sum in the augmented Chebyshev norm, as in the paper."""


def parego_losses(costs: Points, violations: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    """One loss per row, less is better, under weights that are drawn anew at each call.

    costs: (n, objectives), to be minimised; violations: (n, constraints), ≤ 0 is feasible. Returns (n,).
    A feasible row gets the augmented Chebyshev norm of its costs, each scaled to [0, 1] by what the feasible rows span. An
    infeasible row is worse than every feasible one, by the sum of its violations, each as a share of the largest.
    Source: Knowles 2006, "ParEGO", IEEE Trans. Evol. Comput. 10(1), eq. 2; we draw the weights from the whole simplex instead of
    from a grid on it. Constraints: Deb 2000, "An efficient constraint handling method for genetic algorithms", eq. 4.
    """
    weights = rng.dirichlet(np.ones(costs.shape[1]))
    feasible = np.all(violations <= 0, axis=1)
    finite = np.where(np.isfinite(costs), costs, np.nan)
    seen = finite[feasible] if feasible.any() else finite
    # A column without one finite figure says nothing: it spans [0, 1], and its infinities are clipped to the ends.
    low, high = np.zeros(costs.shape[1]), np.ones(costs.shape[1])
    known = ~np.isnan(seen).all(axis=0)
    low[known], high[known] = np.nanmin(seen[:, known], axis=0), np.nanmax(seen[:, known], axis=0)
    scaled = np.clip((costs - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    losses = chebyshev(weights, scaled)
    beyond = np.clip(violations, 0.0, None)
    largest = beyond.max(axis=0, initial=0.0)
    shares = (beyond / np.where(largest > 0, largest, 1.0)).sum(axis=1)
    return np.where(feasible, losses, 1.0 + RHO + shares)


def chebyshev(weights: NDArray[np.float64], shares: Points) -> NDArray[np.float64]:
    """Augmented Chebyshev norm of each row. weights: (objectives,), they add up to 1; shares: (n, objectives) in [0, 1]."""
    weighted = weights * shares
    norms: NDArray[np.float64] = weighted.max(axis=1) + RHO * weighted.sum(axis=1)
    return norms


def score(
    evaluation: Evaluation,
    objectives: Mapping[str, Direction],
    dense: Mapping[str, Measurement],
    goals: Sequence[Goal],
    seed: int,
) -> float:
    """One number for one network, more is better, for an optimiser that is told a number once and cannot be told another.

    Each objective counts as a share of the way from the best that there could be (the dense network's score, at no cost) to the
    reference point (`front.reference_point`). The weights are drawn for each network, from `seed` and its `plan_key`, so the
    same network always has the same number. Feasible networks lie in [-1 - RHO, 0]; infeasible ones below, by the goals that
    they miss; failed ones below all others.
    """
    if evaluation.failure is not None or not objectives.keys() <= evaluation.measurements.keys():
        return -(2 + RHO + len(goals))
    missed = missed_by(goals, evaluation.measurements, in_search=True).values()
    if any(violation > 0 for violation in missed):
        return -(1 + RHO + sum(min(max(violation, 0.0), 1.0) for violation in missed))
    best = np.array([0.0 if d == "minimize" else -dense[name].value for name, d in objectives.items()])
    worst = np.array(reference_point(objectives, dense, goals))
    span = np.where(worst > best, worst - best, 1.0)
    shares = np.clip((as_costs([evaluation], objectives) - best) / span, 0.0, 1.0)
    weights = np.random.default_rng([seed, int(evaluation.plan_key, 16)]).dirichlet(np.ones(len(objectives)))
    return -float(chebyshev(weights, shares)[0])

"""Several objectives as one number, for optimisers that know only one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur.search.front import Points

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
    losses: NDArray[np.float64] = (weights * scaled).max(axis=1) + RHO * (weights * scaled).sum(axis=1)
    beyond = np.clip(violations, 0.0, None)
    largest = beyond.max(axis=0, initial=0.0)
    shares = (beyond / np.where(largest > 0, largest, 1.0)).sum(axis=1)
    return np.where(feasible, losses, 1.0 + RHO + shares)

"""An additive model of what cuts cost and save, re-fitted with everything that has been observed.

The sensitivity sweep gives a curve for each group cut alone. Damages do not quite add up when several groups are cut, and every
criterion has its own curve, so each (group, method) gets a factor on its curve: a Bayesian linear regression on all evaluated
networks, whose prior is the sweep itself. Candidates come from the exact knapsack on curves with factors *drawn* from the
posterior (Thompson sampling): where little is known, draws differ and the search looks there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.records import Evaluation
from secateur.search.knapsack import Curve
from secateur.search_spaces import SearchSpace

PRIOR_SPREAD = 0.5
"""Standard deviation of a factor before anything is observed, relative to its mean."""
NOISE = 0.25
"""Standard deviation of an observed damage about the sum of its parts, relative to it."""
DAMAGE_FLOOR = 1e-3
"""The same for damages near nought, in the unit of damage."""
SAVING_NOISE = 0.02
"""Standard deviation of an observed saving, as a share of the dense model's cost: that of a latency measured in a hurry."""
REMEMBERED = 200
"""Latest networks that a fit looks at, so that its cost does not grow with the search."""


class Regression:
    """Linear regression with an independent Gaussian prior on every factor.

    Works in the space of the m observations (at most `REMEMBERED`), so its cost grows linearly with the number of factors.
    """

    def __init__(
        self,
        features: NDArray[np.float64],
        observed: NDArray[np.float64],
        prior: NDArray[np.float64],
        noise: NDArray[np.float64],
    ) -> None:
        """features: (m, n), what each factor adds; observed: (m,); prior: (n,) means; noise: (m,) standard deviations."""
        self._features, self._observed, self._prior, self._noise = features, observed, prior, noise
        self._spread = PRIOR_SPREAD * prior
        covariance = (features * self._spread**2) @ features.T + np.diag(noise**2)
        self._solve = np.linalg.inv(covariance) if len(observed) else covariance

    @property
    def mean(self) -> NDArray[np.float64]:
        """(n,): the factors, given what has been observed."""
        return self._given(self._prior, self._observed)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """(n,): factors from the posterior, none below a twentieth of its prior: no cut mends anything.

        By conditioning a draw from the prior on the observations (Matheron's rule).
        """
        drawn = self._prior + self._spread * rng.standard_normal(len(self._prior))
        disturbed = self._observed + self._noise * rng.standard_normal(len(self._observed))
        return np.maximum(self._given(drawn, disturbed), 0.05 * self._prior)

    def _given(self, factors: NDArray[np.float64], observed: NDArray[np.float64]) -> NDArray[np.float64]:
        gap = observed - self._features @ factors
        moved: NDArray[np.float64] = factors + self._spread**2 * (self._features.T @ (self._solve @ gap))
        return moved


class AdditiveModel:
    """Damage and savings of any candidate as sums over its groups.

    damage: group → its curve, by the method of the sweep. savings: cost → group → its curve. ratios: method → damage of its uniform
    cut over that of the sweep's method.
    """

    def __init__(
        self,
        space: SearchSpace,
        damage: Mapping[str, Curve],
        savings: Mapping[str, Mapping[str, Curve]],
        ratios: Mapping[str, float],
    ) -> None:
        self.space, self.damage, self.savings = space, damage, savings
        self.pairs = [(name, method) for name in damage for method in space.choices[name].methods]
        self._column = {pair: i for i, pair in enumerate(self.pairs)}
        self._group = {name: i for i, name in enumerate(damage)}
        self._position = {name: {w: i for i, w in enumerate(curve.widths)} for name, curve in damage.items()}
        self._prior = np.array([min(max(ratios.get(method, 1.0), 0.25), 4.0) for _, method in self.pairs])
        self._scale: dict[str, NDArray[np.float64]] = {}

    def observe(self, evaluations: Sequence[Evaluation], dense: Mapping[str, float]) -> None:
        """Fit to evaluated networks. dense: the original's costs."""
        seen = evaluations[-REMEMBERED:]
        harmed = np.zeros((len(seen), len(self.pairs)))
        saved = {cost: np.zeros((len(seen), len(self._group))) for cost in self.savings}
        for i, evaluation in enumerate(seen):
            for name, cut in evaluation.candidate.cuts.items():
                if cut.method is not None and name in self._position:
                    position = self._position[name][cut.kept]
                    harmed[i, self._column[name, cut.method]] = self.damage[name].damage[position]
                    for cost, curves in self.savings.items():
                        saved[cost][i, self._group[name]] = curves[name].saving[position]
        damages = np.array([e.measurements["damage"].value for e in seen])
        self._harm = Regression(harmed, damages, self._prior, NOISE * damages + DAMAGE_FLOOR)
        for cost, features in saved.items():
            share = np.array([1 - e.measurements[cost].value / dense[cost] for e in seen])
            fitted = Regression(features, share, np.ones(len(self._group)), np.full(len(seen), SAVING_NOISE))
            self._scale[cost] = np.maximum(fitted.mean, 0.0)

    def draw(self, rng: np.random.Generator, cost: Mapping[str, float]) -> dict[str, list[tuple[str, Curve]]]:
        """Curves with drawn factors: group → (method, curve) for each of its methods. cost: weight of each saving."""
        factors = self._harm.draw(rng)
        saved = {name: np.zeros(len(curve.widths)) for name, curve in self.damage.items()}
        for name_of_cost, weight in cost.items():
            for name, curve in self.savings[name_of_cost].items():
                saved[name] += weight * self._scale[name_of_cost][self._group[name]] * np.array(curve.saving)
        drawn: dict[str, list[tuple[str, Curve]]] = {}
        for (name, method), factor in zip(self.pairs, factors, strict=True):
            curve = self.damage[name]
            damage = tuple((factor * np.array(curve.damage)).tolist())
            drawn.setdefault(name, []).append((method, Curve(curve.widths, damage, tuple(saved[name].tolist()))))
        return drawn


def cheapest(options: Sequence[tuple[str, Curve]]) -> tuple[Curve, tuple[str, ...]]:
    """One curve for a group: at every width the method of least damage. Returns it with those methods, by position."""
    table = np.array([curve.damage for _, curve in options])
    best = table.argmin(0)
    first = options[0][1]
    damage = tuple(table.min(0).tolist())
    return Curve(first.widths, damage, first.saving), tuple(options[i][0] for i in best)

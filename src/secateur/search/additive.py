"""An additive model of what cuts cost and save, re-fitted with everything that has been observed.

The sensitivity sweep gives a curve for each group cut alone. Damages do not quite add up when several groups are cut, and every
criterion has its own curve, so each (group, method) gets a factor on its curve: a Bayesian linear regression on all evaluated
networks, whose prior is the sweep itself. Candidates come from the exact knapsack on curves with factors *drawn* from the
posterior (Thompson sampling): where little is known, draws differ and the search looks there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.records import Evaluation, named
from secateur.search.knapsack import damage_curve, saving_curve
from secateur.search_spaces import Choice, Option, SearchSpace

PRIOR_SPREAD = 0.15
"""Standard deviation of a factor before anything is observed, relative to its mean."""
NOISE = 0.15
"""Standard deviation of an observed damage about the sum of its parts, relative to it."""
DAMAGE_FLOOR = 1e-3
"""The same for damages near nought, in the unit of damage."""
SAVING_NOISE = 0.02
"""Standard deviation of an observed saving, as a share of the dense model's cost: that of a latency measured in a hurry."""
MOST_APART = 5.0
"""Times that one method's damage may be another's; beyond that a small denominator speaks."""
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
    """Damage and savings of any candidate as sums over its groups."""

    def __init__(
        self,
        space: SearchSpace,
        damage: Mapping[str, Mapping[str, Mapping[int, float]]],
        savings: Mapping[str, Mapping[str, Mapping[int, float]]],
        compared: Mapping[str, float],
    ) -> None:
        """damage: group → method → position on its ladder → damage of that option alone.

        savings: cost → group → position → share of the cost that it saves.
        compared: method → damage of one cut of many groups, for methods of which a group has no point of its own.
        """
        self.pairs = [
            (name, method)
            for name, by_method in damage.items()
            for transform in space.choices[name].transforms
            if any(named(method)[0] == transform for method in by_method)
            for method in space.choices[name].methods_of(transform)
        ]
        self._column = {pair: i for i, pair in enumerate(self.pairs)}
        self._group = {name: i for i, name in enumerate(damage)}
        self._choices = {name: space.choices[name] for name in damage}
        self._damage = {
            (name, method): curve
            for name, by_method in damage.items()
            for method, curve in _by_method(self._choices[name], by_method, compared).items()
        }
        self._saving = {
            cost: {name: _savings(self._choices[name], points) for name, points in by_group.items()}
            for cost, by_group in savings.items()
        }
        self.costs = list(savings)
        self._scale: dict[str, NDArray[np.float64]] = {}

    def observe(self, evaluations: Sequence[Evaluation], dense: Mapping[str, float]) -> None:
        """Fit to evaluated networks. dense: the original's costs."""
        seen = evaluations[-REMEMBERED:]
        harmed = np.zeros((len(seen), len(self.pairs)))
        saved = {cost: np.zeros((len(seen), len(self._group))) for cost in self.costs}
        for i, evaluation in enumerate(seen):
            for name, choice in self._choices.items():
                if edits := evaluation.candidate.edits.get(name):
                    position, method = choice.position(edits), edits[0].method
                    harmed[i, self._column[name, method]] = self._damage[name, method][position]
                    for cost, curves in self._saving.items():
                        saved[cost][i, self._group[name]] = curves[name][position]
        damages = np.array([e.measurements["damage"].value for e in seen])
        self._harm = Regression(harmed, damages, np.ones(len(self.pairs)), NOISE * damages + DAMAGE_FLOOR)
        for cost, features in saved.items():
            share = np.array([1 - e.measurements[cost].value / dense[cost] for e in seen])
            fitted = Regression(features, share, np.ones(len(self._group)), np.full(len(seen), SAVING_NOISE))
            self._scale[cost] = np.maximum(fitted.mean, 0.0)

    def damages(self, rng: np.random.Generator | None) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Damage curves over the options, the most likely ones or drawn ones: group → method → (options,).

        Infinite where an option is none of the method's.
        """
        factors = self._harm.mean if rng is None else self._harm.draw(rng)
        curves: dict[str, dict[str, NDArray[np.float64]]] = {}
        for pair, factor in zip(self.pairs, factors, strict=True):
            curves.setdefault(pair[0], {})[pair[1]] = max(factor, 1e-9) * self._damage[pair]
        return curves

    def saving(self, weights: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        """Weighted savings of every option of every group, as shares of the dense model's costs: group → (options,)."""
        saved = {name: np.zeros(len(choice.ladder)) for name, choice in self._choices.items()}
        for cost, weight in weights.items():
            for name, curve in self._saving[cost].items():
                saved[name] += weight * self._scale[cost][self._group[name]] * curve
        return saved

    def saved(self, cost: str, position: Mapping[str, int]) -> float:
        """The share of a cost that is saved by these options (group → position on its ladder)."""
        scale, curves = self._scale[cost], self._saving[cost]
        return float(sum(scale[self._group[name]] * curves[name][i] for name, i in position.items()))


def _by_method(
    choice: Choice, points: Mapping[str, Mapping[int, float]], compared: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    """A group's curve by each of its methods: in a transform, that of the method with most points, stretched for the others."""
    curves: dict[str, NDArray[np.float64]] = {}
    for transform in choice.transforms:
        methods = choice.methods_of(transform)
        swept = max(methods, key=lambda method: len(points.get(method, {})))
        if swept not in points:
            continue
        shape = _over(choice, swept, points[swept], damage_curve, np.inf)
        curves[swept] = shape
        for method in methods:
            if method != swept:
                ratio = compared.get(method, 1.0) / compared.get(swept, 1.0)
                for position, damage in points.get(method, {}).items():
                    ratio = damage / max(shape[position], 1e-9)
                curves[method] = shape * min(max(ratio, 1 / MOST_APART), MOST_APART)
    return curves


def _savings(choice: Choice, points: Mapping[int, float]) -> NDArray[np.float64]:
    """(options,): what each option of a group saves; none where nothing is known of its transform."""
    saved = np.zeros(len(choice.ladder))
    for transform in choice.transforms:
        method = choice.methods_of(transform)[0]
        own = {position: saving for position, saving in points.items() if position in choice.positions(method)}
        if own:
            saved = np.maximum(saved, _over(choice, method, own, saving_curve, 0.0))
    return saved


def _over(
    choice: Choice,
    method: str,
    points: Mapping[int, float],
    curve: Callable[[Sequence[Option], Mapping[int, float]], NDArray[np.float64]],
    elsewhere: float,
) -> NDArray[np.float64]:
    """(options,): a curve over the options of a method, from points at their places on the ladder; a constant elsewhere."""
    positions = choice.positions(method)
    known = {positions.index(position): value for position, value in points.items()}
    filled = np.full(len(choice.ladder), elsewhere)
    filled[[*positions]] = curve([choice.ladder[position] for position in positions], known)
    return filled


def cheapest(options: Mapping[str, NDArray[np.float64]]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """One curve for a group: at every option the method of least damage. Returns it with those methods, by position."""
    methods, table = list(options), np.array(list(options.values()))
    return table.min(0), tuple(methods[i] for i in table.argmin(0))

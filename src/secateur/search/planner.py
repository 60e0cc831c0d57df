"""Candidates from the additive model: the exact knapsack proposes, the hypervolume that is foreseen chooses.

For a few draws from the model's posterior, several mixtures of the costs and many savings, the knapsack finds the cuts of least
damage. Of all these, those are planned that would add the most to the front if the model were right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from secateur.records import Candidate, Direction, Plan, Sensitivity
from secateur.search.additive import AdditiveModel, cheapest
from secateur.search.front import Archive
from secateur.search.knapsack import Curve, solve
from secateur.search.ledger import Ledger, own
from secateur.search.sensitivity import known_sensitivities
from secateur.search.study import Proposal
from secateur.search.warm_start import method_damages

DRAWS = 4
"""Models from which solutions come: the most likely one, and draws from the posterior."""
MIXTURES = 2
"""Random mixtures of the costs, beside each cost alone."""
TARGETS = np.linspace(0.04, 0.96, 16)
"""Savings asked for, as shares of the largest possible one."""
SAMPLES = 4096
"""Points in the box below the reference by which a gain of hypervolume is estimated."""


@dataclass(frozen=True)
class Solution:
    """A candidate and its figures by the model that proposed it, as costs (all to be minimised)."""

    candidate: Candidate
    costs: tuple[float, ...]


def knapsack(ledger: Ledger, count: int) -> Iterator[Proposal]:
    """Up to `count` networks that are not known yet and can keep all goals, those first that should add the most hypervolume."""
    problem, start = ledger.problem, len(ledger.trials)
    model = additive_model(ledger, known_sensitivities(ledger.study))
    if model is None:
        return
    rng = np.random.default_rng([problem.seed, start])
    solutions = list(_solutions(ledger, model, rng))
    planned = 0
    for solution in by_gain(solutions, ledger.archive, rng):
        if planned == count:
            return
        plan = problem.resolve(solution.candidate)
        if ledger.known(plan.key) is None and ledger.forecast.rejects(problem.goals, problem.exact(plan)) is None:
            yield Proposal(solution.candidate, "knapsack", f"knapsack {start}.{planned}")
            planned += 1


def _solutions(ledger: Ledger, model: AdditiveModel, rng: np.random.Generator) -> Iterator[Solution]:
    """Knapsack solutions with what the model foresees of them; those that would miss a goal on a cost are left out."""
    problem = ledger.problem
    score_of = _score_of_damage(ledger)
    costs = model.costs
    limits = [goal for goal in problem.goals if goal.sense == "at_most" and goal.metric in costs]
    for number in range(DRAWS):
        best = {name: cheapest(options) for name, options in model.damages(rng if number else None).items()}
        corners = [{name: float(name == cost) for name in costs} for cost in costs]
        mixed = [dict(zip(costs, rng.dirichlet(np.ones(len(costs))).tolist(), strict=True)) for _ in range(MIXTURES)]
        for weights in corners + mixed if len(costs) > 1 else corners:
            saving = model.saving(weights)
            weighted = {
                name: Curve(tuple(damage.tolist()), tuple(saving[name].tolist())) for name, (damage, _) in best.items()
            }
            largest = sum(max(curve.saving) for curve in weighted.values())
            if largest <= 0:
                continue
            for position in solve(weighted, (largest * (TARGETS + rng.uniform(-0.03, 0.03))).tolist()):
                foreseen = {c: problem.dense[c].value * (1 - model.saved(c, position)) for c in costs}
                if any(foreseen[goal.metric] > goal.limit_in_search for goal in limits):
                    continue
                foreseen["accuracy"] = score_of(sum(weighted[name].damage[i] for name, i in position.items()))
                edits = dict(problem.space.mildest().edits)
                for name, i in position.items():
                    edits[name] = problem.space.choices[name].ladder[i].edits(best[name][1][i])
                figures = [
                    foreseen.get(name, 0.0) * (1 if direction == "minimize" else -1)
                    for name, direction in problem.objectives.items()
                ]
                yield Solution(Candidate.of(edits), tuple(figures))


class _ScoreOfDamage:
    """The score that a damage leads to: monotone, fitted on what has been evaluated."""

    def __init__(self, damages: Sequence[float], scores: Sequence[float], direction: Direction) -> None:
        self._x, same, counts = np.unique(damages, return_inverse=True, return_counts=True)
        means = np.bincount(same, scores) / counts
        self._y = isotonic_regression(means, weights=counts, increasing=direction == "minimize").x

    def __call__(self, damage: float) -> float:
        return float(np.interp(damage, self._x, self._y))


def _score_of_damage(ledger: Ledger) -> _ScoreOfDamage:
    figures = [t.evaluation.measurements for t in own(ledger.trials)[-400:]]  # plenty for one curve
    scores = [f["accuracy"].value for f in figures]
    return _ScoreOfDamage([f["damage"].value for f in figures], scores, ledger.problem.score_direction)


def by_gain(solutions: Sequence[Solution], archive: Archive, rng: np.random.Generator) -> Iterator[Solution]:
    """The solutions, each time the one that adds the most to the front and to those before it; those that add nothing last.

    The gain is the share of random points in the box that a solution newly dominates.
    """
    if not solutions:
        return
    reference = archive.reference
    costs = np.array([p.costs for p in solutions])
    ideal = np.minimum(costs.min(0), archive.points.min(0) if len(archive.points) else reference)
    samples = ideal + (reference - ideal) * rng.random((SAMPLES, len(reference)))
    for point in archive.points:
        samples = samples[~np.all(point <= samples, axis=1)]
    covered = _dominated(costs, samples).astype(np.float32)  # a product of booleans would say whether, not how many
    left = list(range(len(solutions)))
    open_ = np.ones(len(samples), np.float32)
    while left:
        gains = covered[left] @ open_
        best = int(gains.argmax())
        if gains[best] == 0:
            break
        chosen = left.pop(best)
        open_ *= 1 - covered[chosen]
        yield solutions[chosen]
    for chosen in rng.permutation(left):
        yield solutions[int(chosen)]


def _dominated(costs: NDArray[np.float64], samples: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(solutions, samples): which samples a solution dominates."""
    covered = np.ones((len(costs), len(samples)), bool)
    for axis in range(costs.shape[1]):
        covered &= costs[:, axis, None] <= samples[None, :, axis]
    return covered


def additive_model(ledger: Ledger, sensitivities: Sequence[Sensitivity]) -> AdditiveModel | None:
    """The model of damage and savings, None where nothing is known of single cuts, or of scores (every evaluation failed)."""
    problem = ledger.problem
    if not sensitivities or not own(ledger.trials):
        return None
    whole = problem.exact(Plan())
    costs = [n for n, d in problem.objectives.items() if d == "minimize" and _foresees(ledger, n)] or ["macs"]
    damage: dict[str, dict[str, dict[int, float]]] = {}
    savings: dict[str, dict[str, dict[int, float]]] = {cost: {} for cost in costs}
    for point in sensitivities:
        position = problem.space.choices[point.group].position((point.edit,))
        damage.setdefault(point.group, {}).setdefault(point.edit.method, {})[position] = point.damage
        cut = {"macs": point.macs, "parameters": point.parameters, "nonzero": point.nonzero}
        for cost in costs:
            saved = _foreseen(ledger, cost, whole) - _foreseen(ledger, cost, cut)
            savings[cost].setdefault(point.group, {})[position] = saved / problem.dense[cost].value
    compared = method_damages(ledger.trials)
    model = AdditiveModel(problem.space, damage, savings, compared)
    model.observe([t.evaluation for t in own(ledger.trials)], {c: problem.dense[c].value for c in costs})
    return model


def _foresees(ledger: Ledger, cost: str) -> bool:
    """Whether a cost can be told from MACs and parameters; one that the dense model does not have cannot be saved."""
    whole = ledger.problem.exact(Plan())
    return ledger.problem.dense[cost].value > 0 and ledger.forecast.of(cost, whole) is not None


def _foreseen(ledger: Ledger, cost: str, exact: Mapping[str, float]) -> float:
    foreseen = ledger.forecast.of(cost, exact)
    assert foreseen is not None  # noqa: S101 # asked for above
    return foreseen.value

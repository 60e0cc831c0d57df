"""What is evaluated beside the sampler's own asks: baselines, an earlier front, a sensitivity sweep, knapsack points.

All of them are trials like any other and count against the budget. Every planned trial has a label, so that a restarted driver
plans the same and evaluates nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.records import Arm, Candidate, Sensitivity, Trial
from secateur.search.additive import AdditiveModel, cheapest
from secateur.search.knapsack import Curve, fill_curve, solve
from secateur.search.ledger import Ledger, Problem, own
from secateur.search_spaces import SearchSpace

SCREENED = 0.375
"""Removed fraction at which the methods are compared."""
FAMILY = (0.5, 0.25, 0.625, 0.125)
"""Further removed fractions of the uniform family, the most telling first."""
SHARES = (0.4, 0.2, 0.55, 0.3)
"""Shares of each group's saliency that the global baseline removes."""
MAGNITUDES = ("l2", "l1", "lamp", "fpgm")
"""Criteria that rank by magnitude, in the order in which the global baseline prefers them."""
DRAWS = 5
"""Draws for one knapsack point before a network that is known already is accepted as the answer."""


@dataclass(frozen=True)
class Planned:
    """A candidate to evaluate, under a label that is the same at every start."""

    candidate: Candidate
    arm: Arm
    label: str


def baselines(problem: Problem, budget: int) -> Iterator[Planned]:
    """The dense network; every method at one uniform fraction; one threshold for all groups; random draws."""
    space = problem.space
    yield Planned(space.dense(), "dense", "dense")
    for method in space.methods:
        yield Planned(space.uniform(SCREENED, method), "uniform", f"uniform {SCREENED} {method}")
    count = _points(budget)
    method = next((name for name in MAGNITUDES if name in space.methods), space.methods[0])
    for share in SHARES[:count]:
        yield Planned(space.ranked(share, method, problem.saliencies), "global", f"global {share} {method}")
    for number in range(count):
        yield Planned(space.random(np.random.default_rng(number)), "random", f"random {number}")


def _points(budget: int) -> int:
    """Points of each baseline: they are to be beaten, not to be the search."""
    return max(1, min(len(FAMILY), budget // 25))


def prior(problem: Problem) -> Iterator[Planned]:
    """The front of an earlier run."""
    for candidate in problem.prior:
        yield Planned(candidate, "prior", f"prior {candidate.key}")


def family(ledger: Ledger, budget: int) -> Iterator[Planned]:
    """The uniform family by the method that did best."""
    space = ledger.problem.space
    method = best_method(space, ledger.trials)
    for fraction in FAMILY[: max(2, _points(budget))]:
        yield Planned(space.uniform(fraction, method), "uniform", f"uniform {fraction} {method}")


def uniform_damages(trials: Sequence[Trial]) -> dict[str, float]:
    """Method → damage of its uniform cut."""
    return {
        trial.label.split()[-1]: trial.evaluation.measurements["damage"].value
        for trial in trials
        if trial.arm == "uniform" and trial.evaluation.complete and trial.label.split()[1] == str(SCREENED)
    }


def best_method(space: SearchSpace, trials: Sequence[Trial]) -> str:
    """The method whose uniform cut did least damage."""
    damage = uniform_damages(trials)
    return min(damage, key=lambda name: damage[name]) if damage else space.methods[0]


def sweep(ledger: Ledger, levels: int) -> Iterator[Planned]:
    """Each group alone, at up to `levels` of its widths spread evenly, by the best method it admits."""
    space = ledger.problem.space
    method = best_method(space, ledger.trials)
    for name, choice in space.choices.items():
        used = method if method in choice.methods else choice.methods[0]
        cuts = choice.widths[1:]
        count = min(levels, len(cuts))
        for i in range(count):
            width = cuts[(2 * i + 1) * len(cuts) // (2 * count)]  # the middle of each of `count` equal parts
            yield Planned(space.only(name, width, used), "sensitivity", f"sensitivity {name} {width}")


def knapsack(ledger: Ledger, count: int) -> Iterator[Planned]:
    """Least-damage points for savings that the front has not got yet, by the additive model of everything observed so far."""
    problem = ledger.problem
    model = additive_model(ledger)
    if model is None:
        return
    start = len(ledger.trials)
    rng = np.random.default_rng([problem.seed, start])
    costs = list(model.savings)
    for number in range(count):
        for _ in range(DRAWS):
            weights = _weights(costs, rng)
            curves, methods = {}, {}
            for name, options in model.draw(rng, weights).items():
                curves[name], methods[name] = cheapest(options)
            largest = sum(max(curve.saving) for curve in curves.values())
            least = min(0.9, needed(problem, weights) / largest) if largest > 0 else 0.0
            (kept,) = solve(curves, [largest * float(rng.uniform(max(0.05, least), 0.95))])
            candidate = _candidate(problem.space, kept, curves, methods)
            if ledger.known(problem.key(candidate)) is None:
                break
        told = " ".join(f"{name} {weight:.2f}" for name, weight in weights.items() if weight)
        yield Planned(candidate, "knapsack", f"knapsack {start}.{number} {told}")


def needed(problem: Problem, weights: Mapping[str, float]) -> float:
    """The saving below which a candidate would miss a goal on a cost, in the unit of weighted savings."""
    saving = {
        goal.metric: 1 - goal.limit_in_search / problem.dense[goal.metric].value
        for goal in problem.goals
        if goal.sense == "at_most" and weights.get(goal.metric)
    }
    return max(0.0, sum(weights[name] * share for name, share in saving.items()))


def _weights(costs: Sequence[str], rng: np.random.Generator) -> dict[str, float]:
    """One cost alone, or a mixture: the front has corners and a middle."""
    if rng.random() < 0.5:  # half of the points are meant for the corners
        chosen = int(rng.integers(len(costs)))
        return {name: float(i == chosen) for i, name in enumerate(costs)}
    return dict(zip(costs, rng.dirichlet(np.ones(len(costs))).tolist(), strict=True))


def _candidate(
    space: SearchSpace, kept: Mapping[str, int], curves: Mapping[str, Curve], methods: Mapping[str, tuple[str, ...]]
) -> Candidate:
    cuts = dict(space.dense().cuts)
    for name, width in kept.items():
        method = methods[name][curves[name].widths.index(width)]
        cuts[name] = space.choices[name].cut(1 - width / space.choices[name].group.width, method)
    return Candidate(cuts)


def additive_model(ledger: Ledger) -> AdditiveModel | None:
    """The model of damage and savings, None where no single cut has succeeded."""
    problem = ledger.problem
    space, trials = problem.space, ledger.trials
    # A cost that the dense model does not have (its own damage, say) cannot be saved.
    costs = [n for n, d in problem.objectives.items() if d == "minimize" and problem.dense[n].value > 0] or ["macs"]
    dense = {cost: problem.dense[cost].value for cost in costs}
    damage: dict[str, dict[int, tuple[float, float]]] = {}
    savings: dict[str, dict[str, dict[int, tuple[float, float]]]] = {cost: {} for cost in costs}
    for trial in trials:
        cut = _single_cut(space, trial)
        if cut is not None:
            name, width = cut
            figures = trial.evaluation.measurements
            for cost in costs:
                saving = 1 - figures[cost].value / dense[cost]
                savings[cost].setdefault(name, {})[width] = (figures["damage"].value, saving)
            damage[name] = savings[costs[0]][name]
    if not damage:
        return None
    curves = {
        cost: {name: fill_curve(space.choices[name].widths, points) for name, points in known.items()}
        for cost, known in savings.items()
    }
    uniform = uniform_damages(trials)
    best = min(uniform.values(), default=1.0)
    ratios = {method: value / best for method, value in uniform.items()} if best > 0 else {}
    model = AdditiveModel(space, curves[costs[0]], curves, ratios)
    model.observe([t.evaluation for t in own(trials)], dense)
    return model


def _single_cut(space: SearchSpace, trial: Trial) -> tuple[str, int] | None:
    """Group and width of a sensitivity trial that succeeded."""
    if trial.arm != "sensitivity" or not trial.evaluation.complete:
        return None
    for name, cut in trial.evaluation.candidate.cuts.items():
        if cut.kept < space.choices[name].group.width:
            return name, cut.kept
    return None


def sensitivities(space: SearchSpace, trials: Sequence[Trial]) -> list[Sensitivity]:
    """The sweep's points, for the report."""
    found = []
    for trial in trials:
        cut = _single_cut(space, trial)
        if cut is None:
            continue
        name, width = cut
        found.append(
            Sensitivity(
                name,
                trial.evaluation.candidate.cuts[name].method,
                width,
                space.choices[name].group.width,
                trial.evaluation.measurements["damage"].value,
                trial.evaluation.measurements["accuracy"].value,
            )
        )
    return found

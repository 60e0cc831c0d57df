"""What is evaluated before the sampler is asked: baselines, a sensitivity sweep, knapsack points.

All of them are trials like any other and count against the budget. Each phase is planned from what the earlier ones found, and
every trial has a label, so that a restarted driver plans the same and enqueues nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from secateur.records import Arm, Candidate, Direction, Evaluation, Sensitivity, Trial
from secateur.search.knapsack import Curve, fill_curve, solve
from secateur.search_spaces import SearchSpace

SCREENED = 0.375
"""Removed fraction at which the methods are compared."""
FAMILY = (0.125, 0.25, 0.5, 0.625)
"""Further removed fractions of the uniform family."""


@dataclass(frozen=True)
class Planned:
    """A candidate to evaluate, under a label that is the same at every start."""

    candidate: Candidate
    arm: Arm
    label: str


def baselines(space: SearchSpace) -> Iterator[Planned]:
    """The dense network, and every method at one uniform fraction: which of them suits this network?"""
    yield Planned(space.dense(), "dense", "dense")
    for method in space.methods:
        yield Planned(space.uniform(SCREENED, method), "uniform", f"uniform {SCREENED} {method}")


def family(space: SearchSpace, trials: Sequence[Trial]) -> Iterator[Planned]:
    """The uniform family by the method that did best."""
    method = best_method(space, trials)
    for fraction in FAMILY:
        yield Planned(space.uniform(fraction, method), "uniform", f"uniform {fraction} {method}")


def best_method(space: SearchSpace, trials: Sequence[Trial]) -> str:
    """The method whose uniform cut did least damage."""
    damage = {
        trial.label.split()[-1]: trial.evaluation.measurements["damage"].value
        for trial in trials
        if trial.arm == "uniform" and trial.evaluation.failure is None and trial.label.split()[1] == str(SCREENED)
    }
    return min(damage, key=lambda name: damage[name]) if damage else space.methods[0]


def sweep(space: SearchSpace, trials: Sequence[Trial], levels: int) -> Iterator[Planned]:
    """Each group alone, at up to `levels` of its widths spread evenly, by the best method it admits."""
    method = best_method(space, trials)
    for name, choice in space.choices.items():
        used = method if method in choice.methods else choice.methods[0]
        cuts = choice.widths[1:]
        count = min(levels, len(cuts))
        for i in range(count):
            width = cuts[(2 * i + 1) * len(cuts) // (2 * count)]  # the middle of each of `count` equal parts
            yield Planned(space.only(name, width, used), "sensitivity", f"sensitivity {name} {width}")


def knapsack(
    space: SearchSpace, trials: Sequence[Trial], objectives: Mapping[str, Direction], count: int
) -> Iterator[Planned]:
    """Least-damage points for savings spread over the whole range, for each cost among the objectives in turn."""
    dense = next(t.evaluation for t in trials if t.arm == "dense")
    method = best_method(space, trials)
    # A cost that the dense model does not have (its own damage, say) cannot be saved.
    costs = [n for n, d in objectives.items() if d == "minimize" and dense.measurements[n].value > 0] or ["macs"]
    seen: set[str] = set()
    for position, cost in enumerate(costs):
        share = count // len(costs) + (position < count % len(costs))
        curves = _curves(space, trials, dense, cost)
        largest = sum(curve.saving[-1] for curve in curves.values())
        targets = [largest * (i + 1) / (share + 1) for i in range(share)]
        for target, kept in zip(targets, solve(curves, targets), strict=True):
            fractions = {
                name: 1 - kept.get(name, choice.group.width) / choice.group.width
                for name, choice in space.choices.items()
            }
            candidate = Candidate(
                {
                    name: choice.cut(fractions[name], method if method in choice.methods else choice.methods[0])
                    for name, choice in space.choices.items()
                }
            )
            if candidate.key not in seen:
                seen.add(candidate.key)
                yield Planned(candidate, "knapsack", f"knapsack {cost} {target / largest if largest else 0:.3f}")


def _curves(space: SearchSpace, trials: Sequence[Trial], dense: Evaluation, cost: str) -> dict[str, Curve]:
    """Damage and relative saving of every width of every group that the sweep reached."""
    known: dict[str, dict[int, tuple[float, float]]] = {}
    base = dense.measurements[cost].value
    for trial in trials:
        cut = _single_cut(space, trial)
        if cut is not None and cost in trial.evaluation.measurements:
            name, width = cut
            saving = 1 - trial.evaluation.measurements[cost].value / base
            known.setdefault(name, {})[width] = (trial.evaluation.measurements["damage"].value, saving)
    return {name: fill_curve(space.choices[name].widths, points) for name, points in known.items()}


def _single_cut(space: SearchSpace, trial: Trial) -> tuple[str, int] | None:
    """Group and width of a sensitivity trial that succeeded."""
    if trial.arm != "sensitivity" or trial.evaluation.failure is not None:
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

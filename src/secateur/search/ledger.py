"""What a search has found out: every recorded trial, which networks are known, and the front so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from secateur.records import Arm, Candidate, Direction, Evaluation, Goal, Measurement, Plan, Trial
from secateur.search.forecast import Forecast
from secateur.search.front import Archive, as_costs, choose, reference_point
from secateur.search.goals import holds, violations

if TYPE_CHECKING:  # torch and Optuna are slow to import, and who reads a finished run needs neither
    from secateur.compression.saliency import Saliencies
    from secateur.search.study import Pending, Study
    from secateur.search_spaces import SearchSpace

RACED: tuple[Arm, ...] = ("knapsack", "sampler", "prior")
"""Arms whose candidates may be given up early; baselines and sensitivity curves need all of their figures."""


@dataclass(frozen=True)
class Problem:
    """What is searched, and what is known without evaluating anything.

    resolve: spells a candidate out, in milliseconds. exact: MACs and parameters of the network that a plan leads to. dense: the
    original's figures on search data. saliencies: for the global baseline. warm_starts: False leaves everything to the sampler.
    prior: candidates of an earlier front. score_direction: see `Workload`. seed: of what is drawn outside the sampler.
    """

    space: SearchSpace
    objectives: Mapping[str, Direction]
    resolve: Callable[[Candidate], Plan]
    exact: Callable[[Plan], Mapping[str, float]]
    dense: Mapping[str, Measurement]
    goals: tuple[Goal, ...] = ()
    saliencies: Saliencies = field(default_factory=dict)
    warm_starts: bool = True
    prior: tuple[Candidate, ...] = ()
    seed: int = 0
    score_direction: Direction = "maximize"


class Ledger:
    """The recorded trials of one search, kept in the study, and what follows from them.

    An operation costs as much as the front is long, however long the search has been going on.
    """

    def __init__(
        self, problem: Problem, study: Study, on_trial: Callable[[Ledger, Trial], None] = lambda _l, _t: None
    ) -> None:
        """Takes in what the study holds already."""
        self.problem, self.study, self.on_trial = problem, study, on_trial
        self.trials: list[Trial] = []
        self.labels: set[str] = set()
        self.evaluated = 0
        """Networks that were looked at, failures included; repeats and what a cheap constraint rejected are not in it."""
        self.fruitless = 0
        """Asks in a row that led to nothing new: networks already seen, or rejected unseen."""
        self.without_gain = 0
        """Evaluated networks in a row that added nothing to the front."""
        self.forecast = Forecast()
        reference = reference_point(problem.objectives, problem.dense, problem.goals)
        self.archive = Archive(problem.objectives, np.array(reference))
        self._known: dict[str, Trial] = {}
        for trial in study.trials():
            self._take_in(trial)

    def known(self, key: str, arm: Arm = "sampler") -> Trial | None:
        """The trial that has evaluated this network; what was given up early is not enough for an arm that is not raced."""
        trial = self._known.get(key)
        return None if trial is not None and trial.evaluation.stopped and arm not in RACED else trial

    def rejection(self, candidate: Candidate, plan: Plan) -> Evaluation | None:
        """Why a candidate need not be evaluated, as an evaluation without accuracy; None where nothing speaks against it."""
        exact = self.problem.exact(plan)
        missed = self.forecast.rejects(self.problem.goals, exact)
        if missed is None:
            return None
        goal, foreseen = missed
        computed = {name: Measurement(value, _UNITS[name], "computed") for name, value in exact.items()}
        if goal.metric not in computed:
            interval = (foreseen.value - foreseen.slack, foreseen.value + foreseen.slack)
            computed[goal.metric] = Measurement(
                foreseen.value, self.problem.dense[goal.metric].unit, "predicted", interval=interval
            )
        return Evaluation(
            candidate,
            plan.key,
            computed,
            stopped=f"rejected unseen: {goal.metric} would miss '{goal.text}'",
            rejected=True,
        )

    def hurdles(self, arm: Arm) -> tuple[Mapping[str, float], ...]:
        """What a candidate of this arm must be able to get past: the points of the front."""
        return self.archive.values if arm in RACED else ()

    def tell(self, pending: Pending, key: str, evaluation: Evaluation) -> Trial:
        """Store one evaluation; a network that is known already shares that trial's."""
        known = self.known(key, pending.proposal.arm)
        evaluation = known.evaluation if known is not None else replace(evaluation, plan_key=key)
        relevant = [goal for goal in self.problem.goals if goal.metric in evaluation.measurements]
        missed = violations(relevant, evaluation.measurements, in_search=True) if evaluation.failure is None else {}
        trial = self.study.tell(pending, evaluation, missed, known.number if known else None)
        self._take_in(trial)
        self.on_trial(self, trial)
        return trial

    def _take_in(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.labels |= {trial.label} - {""}
        evaluation = trial.evaluation
        if trial.same_as is not None:
            self.fruitless += 1
            return
        self._known[evaluation.plan_key] = trial
        if evaluation.stopped and not self.problem.objectives.keys() <= evaluation.measurements.keys():
            self.fruitless += 1
            return
        self.evaluated += 1
        self.fruitless = 0
        self.forecast.learn(evaluation)
        missed = violations(self.problem.goals, evaluation.measurements, in_search=True)
        gained = evaluation.complete and max(missed.values(), default=0.0) <= 0 and self.archive.add(evaluation)
        self.without_gain = 0 if gained else self.without_gain + 1


_UNITS = {"macs": "MACs", "parameters": "parameters", "nonzero": "parameters"}


def own(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that were looked at in full and share nobody's evaluation."""
    return [t for t in trials if t.same_as is None and t.evaluation.complete]


def feasible(trials: Sequence[Trial], goals: Sequence[Goal]) -> list[Trial]:
    """Trials that meet the relaxed limits that hold before recovery."""
    return [t for t in trials if holds(goals, t.evaluation.measurements, in_search=True)]


def by_hypervolume(
    trials: Sequence[Trial],
    objectives: Mapping[str, Direction],
    dense: Mapping[str, Measurement],
    goals: Sequence[Goal],
    count: int,
) -> list[Trial]:
    """Up to `count` trials, each time the one that adds the most hypervolume to those before it."""
    points = as_costs([t.evaluation for t in trials], objectives)
    reference = np.array(reference_point(objectives, dense, goals))
    return [trials[i] for i in choose(points, reference, count)]

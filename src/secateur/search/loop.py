"""The search: phases of warm starts, then the sampler, until the budget is spent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from secateur.records import Candidate, Direction, Evaluation, Trial
from secateur.search.study import Study
from secateur.search.warm_start import Planned, baselines, family, knapsack, sweep
from secateur.search_spaces import SearchSpace

REPEATS = 200
"""Asks in a row that lead to networks already seen, after which the space counts as exhausted."""


@dataclass(frozen=True)
class Problem:
    """What is searched, and how a candidate is judged.

    key: identifies the network a candidate leads to, in milliseconds; evaluate: measures it. violations: constraint name →
    how far an evaluation violates it, ≤ 0 is feasible.
    """

    space: SearchSpace
    objectives: Mapping[str, Direction]
    key: Callable[[Candidate], str]
    evaluate: Callable[[Candidate], Evaluation]
    violations: Callable[[Evaluation], Mapping[str, float]]
    warm_starts: bool = True


@dataclass
class Progress:
    """Told trials so far. Networks that came up again cost nothing and do not count against the budget."""

    trials: list[Trial] = field(default_factory=list)

    @property
    def evaluated(self) -> int:
        """Trials with an evaluation of their own."""
        return sum(trial.same_as is None for trial in self.trials)


def search(
    problem: Problem, study: Study, budget: int, on_trial: Callable[[Progress, Trial], None] = lambda _p, _t: None
) -> Progress:
    """Run (or go on with) a search until `budget` networks have been evaluated. Returns all told trials."""
    study.recover()
    progress = Progress(study.trials())
    numbers = {trial.evaluation.removals_key: trial.number for trial in progress.trials if trial.same_as is None}
    evaluations = {trial.number: trial.evaluation for trial in progress.trials}
    phases = _phases(problem, budget, progress) if problem.warm_starts else iter(())
    repeats = next((i for i, trial in enumerate(reversed(progress.trials)) if trial.same_as is None), 0)
    while progress.evaluated < min(budget, problem.space.size) and repeats < REPEATS:
        while not study.waiting:
            phase = next(phases, None)
            if phase is None:
                break
            for planned in phase:
                study.enqueue(problem.space.values(planned.candidate), planned.arm, planned.label)
        asked = study.ask()
        candidate = problem.space.candidate(asked.values)
        key = problem.key(candidate)
        same_as = numbers.get(key)
        if same_as is None:
            evaluation = problem.evaluate(candidate)
            numbers[key], repeats = asked.number, 0
        else:
            evaluation, repeats = evaluations[same_as], repeats + 1
        evaluations[asked.number] = evaluation
        violations = problem.violations(evaluation) if evaluation.failure is None else {}
        study.tell(asked, evaluation, violations, same_as)
        progress.trials.append(Trial(asked.number, asked.arm, asked.label, evaluation, same_as))
        on_trial(progress, progress.trials[-1])
    return progress


def _phases(problem: Problem, budget: int, progress: Progress) -> Iterator[Iterable[Planned]]:
    """Each phase is planned when the one before it has been told. A restarted driver plans the same again.

    The sweep takes at most two fifths of the budget and at least one width of each group; the knapsack a third of what is left.
    """
    space = problem.space
    first = list(baselines(space))
    yield first
    second = list(family(space, progress.trials))
    yield second
    levels = max(1, min(3, int(budget * 0.4 / len(space.choices))))
    third = list(sweep(space, progress.trials, levels))
    yield third
    left = budget - len(first) - len(second) - len(third)
    yield knapsack(space, progress.trials, problem.objectives, max(1, left // 3))

"""The gate: what a tuned network must have shown, on data that the search never saw, before it is registered.

A goal holds where it has been *shown*, not where the figure happens to lie on the right side (non-inferiority):

    max_drop on the score        the one-sided 95 % bound of the paired loss is at most what is allowed (max_rise: the same)
    at_least on the score        the one-sided 95 % bound of the network's own score is at least the limit (at_most: at most)
    limits on anything else      the whole 95 % interval keeps the limit; a figure without an interval (bytes, MACs) is exact

Test data can only refuse: a network whose test score contradicts a goal, the whole 95 % interval beyond the limit, does not get the
alias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur.errors import EvaluationFailed
from secateur.evaluators.paired import ONE_SIDED, change, interval, most_lost
from secateur.evaluators.sample_scores import Scores
from secateur.formatting import amount, difference, difference_with_interval, score
from secateur.records import SCORE, Check, Direction, Evaluation, Goal, Measurement, Verdict, gain
from secateur.search.front import clearly_better, front


@dataclass(frozen=True)
class Bar:
    """What networks are judged by. unit: of the score."""

    goals: Sequence[Goal]
    objectives: Mapping[str, Direction]
    unit: str


@dataclass(frozen=True)
class Contender:
    """A network at the gate: its figures and its scores, on selection data."""

    evaluation: Evaluation
    scores: Scores


def judged(
    contenders: Mapping[str, Contender], dense: Contender, bar: Bar
) -> tuple[dict[str, Verdict], dict[str, str]]:
    """A verdict for each contender by its name, with the dense model on the front; and why others cannot be compared with it."""
    shown: dict[str, tuple[tuple[Check, ...], Measurement]] = {}
    failures: dict[str, str] = {}
    for name, contender in contenders.items():
        try:
            shown[name] = checks(bar, contender, dense), change(contender.scores, dense.scores)
        except EvaluationFailed as error:
            failures[name] = f"it cannot be compared with the dense model: {error}"
    members = front_of([dense, *(contenders[name] for name in shown)], bar.objectives)
    return {
        name: Verdict(name, any(contenders[name] is member for member in members), held, changed)
        for name, (held, changed) in shown.items()
    }, failures


def better(left: Contender, right: Contender, metric: str, direction: Direction) -> bool:
    """Whether one network beats another in a metric beyond noise: the 95 % interval of the difference does not contain zero.

    The score is compared sample by sample; figures with an interval as independent ones; exact figures as they are. A difference
    whose interval is not known shows nothing.
    """
    if metric == SCORE:
        try:
            low, high = change(left.scores, right.scores).bounds
        except EvaluationFailed:
            return False
        return low > 0 if direction == "maximize" else high < 0
    return clearly_better(left.evaluation.measurements[metric], right.evaluation.measurements[metric], direction)


def front_of(contenders: Sequence[Contender], objectives: Mapping[str, Direction]) -> list[Contender]:
    """The contenders that none of the others dominates (as `secateur.search.front` has it), compared by `better`."""
    of = {id(contender.evaluation): contender for contender in contenders}

    def beats(left: Evaluation, right: Evaluation, metric: str) -> bool:
        return better(of[id(left)], of[id(right)], metric, objectives[metric])

    return [of[id(member)] for member in front([c.evaluation for c in contenders], objectives, beats)]


def checks(bar: Bar, contender: Contender, dense: Contender) -> tuple[Check, ...]:
    """Each goal, with the figures where a network has not been shown to keep it. Raises EvaluationFailed without an interval."""
    return tuple(Check(goal.text, _missed(goal, contender, dense, bar.unit)) for goal in bar.goals)


def _missed(goal: Goal, contender: Contender, dense: Contender, unit: str) -> str | None:
    figure = contender.evaluation.measurements.get(goal.metric)
    if figure is None:
        return "not measured"
    if goal.metric != SCORE:
        low, high = figure.bounds
        end = low if goal.sense == "at_least" else high
        kept = goal.violation(end, in_search=False) <= 0
        return None if kept else f"{figure.value:.4g} {figure.unit}, and it may be {end:.4g}"
    if goal.drop is None:
        own = interval(contender.scores, ONE_SIDED)
        end = own.low if goal.sense == "at_least" else own.high
        kept = goal.violation(end, in_search=False) <= 0
        return None if kept else f"{score(figure.value, unit)}, and it may be {score(end, unit)}"
    changed = change(contender.scores, dense.scores)
    lost = most_lost(changed, contender.scores.direction)
    if lost <= goal.drop:
        return None
    return f"{difference(changed.value, unit)}, and a loss of {amount(lost, unit)} cannot be excluded"


def veto(goals: Sequence[Goal], tested: Scores, dense: Scores, unit: str) -> str | None:
    """Why test data refuses a network the alias, or None. tested, dense: scores on test data.

    It does where a goal on the score is contradicted: with 95 % confidence more is lost than allowed, or the limit is missed.
    """
    for goal in (g for g in goals if g.metric == SCORE):
        if goal.drop is None:
            bounds = interval(tested)
            best, side = (bounds.high, "most") if goal.sense == "at_least" else (bounds.low, "least")
            if goal.violation(best, in_search=False) > 0:
                return f"on test data {score(bounds.value, unit)}, and at {side} {score(best, unit)}: not {goal.text}"
        else:
            changed = change(tested, dense)
            if max(gain(end, tested.direction) for end in changed.bounds) < -goal.drop:
                return f"on test data {difference_with_interval(changed, unit)}: not {goal.text}"
    return None

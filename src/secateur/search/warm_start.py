"""What is evaluated before the sampler is asked: baselines, and an earlier front.

All of them are trials like any other and count against the budget. Every planned trial has a label, so that a restarted driver
plans the same and evaluates nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, pairwise
from math import inf

import numpy as np

from secateur.records import SCORE, Candidate, Trial, gain, named
from secateur.search.front import floor
from secateur.search.ledger import Ledger, Problem
from secateur.search.study import Proposal
from secateur.search_spaces import SearchSpace

SCREENED = 0.65
"""Share of what each method can remove at which the methods are compared, under one threshold for all groups."""
REACH = 1.35
"""Times the largest share so far that a probe may go."""
FRACTIONS = (0.375, 0.25, 0.5, 0.625)
"""Removed fractions of the uniform family, the most telling first."""


def thresholds(problem: Problem) -> Iterator[Proposal]:
    """The dense network, where it is in the space, and one threshold for all groups, by every method: which suits this network?"""
    if problem.space.whole:
        yield Proposal(problem.space.dense(), "dense", "dense")
    for method in problem.space.methods:
        yield _threshold(problem, SCREENED, method)


def _threshold(problem: Problem, share: float, method: str) -> Proposal:
    candidate = problem.space.ranked(share, method, problem.saliencies)
    return Proposal(candidate, "global", f"global {share:.3f} {method}", method, share)


def probe(ledger: Ledger) -> Proposal:
    """One more threshold by the best method: where the score should meet the lowest that is allowed, then into the widest gap.

    The transforms of the space take turns. The score is taken to fall with the square of the share.
    """
    problem = ledger.problem
    methods = [*best_methods(problem.space, ledger.trials).values()]
    method = methods[probed(ledger) % len(methods)]
    lowest = floor(SCORE, problem.score_direction, problem.dense, problem.goals)
    dense = gain(problem.dense[SCORE].value, problem.score_direction)
    scores = {0.0: dense, **_gains_by_share(ledger, method)}
    holding = max((share for share, score in scores.items() if score > lowest), default=0.0)
    lost = max(dense - scores[holding], 1e-3 * (abs(dense) or 1.0))
    boundary = min(holding * (max(dense - lowest, 0.0) / lost) ** 0.5, REACH * max(holding, SCREENED), 0.95)
    beyond = min((share for share, score in scores.items() if score <= lowest), default=1.0)
    target = min(0.97 * boundary, (holding + beyond) / 2) if holding else SCREENED / 2
    if target - holding < 0.05 * max(holding, SCREENED):
        shares = sorted(share for share in scores if share <= holding)
        low, high = max(pairwise(shares), key=lambda pair: pair[1] - pair[0], default=(0.0, SCREENED))
        target = low + 0.6 * (high - low)  # mild cuts lose little: the middle of what is lost lies above
    return _threshold(problem, round(target, 3), method)


def probed(ledger: Ledger) -> int:
    """How many probes have been told."""
    return sum(t.arm == "global" and t.fraction != SCREENED for t in ledger.trials)


def _gains_by_share(ledger: Ledger, method: str) -> dict[float, float]:
    return {
        trial.fraction: gain(trial.evaluation.measurements[SCORE].value, ledger.problem.score_direction)
        for trial in ledger.trials
        if trial.arm == "global" and trial.evaluation.complete and trial.method == method and trial.fraction is not None
    }


def prior(problem: Problem) -> Iterator[Proposal]:
    """The front of an earlier run."""
    yield from map(prior_proposal, problem.prior)


def prior_proposal(candidate: Candidate) -> Proposal:
    """A choice of an earlier run."""
    return Proposal(candidate, "prior", f"prior {candidate.key}")


def controls(ledger: Ledger, budget: int) -> Iterator[Proposal]:
    """The uniform family by the method that did best, and random draws: they are to be beaten, not to be the search."""
    space = ledger.problem.space
    methods = [*best_methods(space, ledger.trials).values()]
    count = max(1, min(len(FRACTIONS), budget // 25))
    for fraction, method in zip(FRACTIONS[:count], cycle(methods), strict=False):
        yield Proposal(space.uniform(fraction, method), "uniform", f"uniform {fraction} {method}", method, fraction)
    for number in range(count):
        yield Proposal(space.random(np.random.default_rng(number)), "random", f"random {number}")


def method_damages(trials: Sequence[Trial]) -> dict[str, float]:
    """Method → damage where it removes as much as the others, under one threshold for all groups."""
    return {
        trial.method: trial.evaluation.measurements["damage"].value
        for trial in trials
        if trial.arm == "global"
        and trial.evaluation.complete
        and trial.fraction == SCREENED
        and trial.method is not None
    }


def best_methods(space: SearchSpace, trials: Sequence[Trial]) -> dict[str, str]:
    """Of each transform the method that did least damage: transform → method; the first of them where nothing is known."""
    damage = method_damages(trials)
    best: dict[str, str] = {}
    for method in damage or space.methods:
        transform = named(method)[0]
        if transform not in best or damage.get(method, inf) < damage.get(best[transform], inf):
            best[transform] = method
    return best

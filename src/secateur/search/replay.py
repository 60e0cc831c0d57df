"""An earlier choice on new weights: is the network still as sensitive where it was, and what is the choice worth now?

The profile is each group's share of all damage, from the edits that lie nearest to what the choice does to the group. Two profiles
are as far apart as the share that would have to go elsewhere (the total variation distance), 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from secateur.records import Job, Precedent, Sensitivity
from secateur.search.executor import Executor
from secateur.search.ledger import Ledger, Problem
from secateur.search.sensitivity import probed
from secateur.search.warm_start import prior_proposal

LEAST_SHARED = 0.5
"""Share of the choice's groups that must be in both profiles for a comparison."""


def profile_moved(ledger: Ledger, executor: Executor, precedent: Precedent) -> float | None:
    """How far the profile has moved since the precedent's search, None where too little of it can be measured again."""
    space = ledger.problem.space
    before = [point for name in space.choices if (point := _nearest(ledger.problem, precedent, name)) is not None]
    now = {
        point.group: point
        for point in probed(
            ledger,
            executor,
            [
                (p.group, choice.ladder[choice.position((p.edit,))], p.edit.method)
                for p in before
                for choice in (space.choices[p.group],)
            ],
        )
    }
    before = [point for point in before if point.group in now]
    chosen = precedent.candidate.edits
    if sum(point.group in chosen for point in before) < LEAST_SHARED * len(chosen):
        return None
    return distance(before, [now[point.group] for point in before])


def distance(before: Sequence[Sensitivity], now: Sequence[Sensitivity]) -> float:
    """Between two profiles of the same groups in the same order; 0 where one of them has no damage at all."""
    totals = [sum(point.damage for point in profile) for profile in (before, now)]
    if not all(totals):
        return 0.0
    return sum(abs(a.damage / totals[0] - b.damage / totals[1]) for a, b in zip(before, now, strict=True)) / 2


def _nearest(problem: Problem, precedent: Precedent, group: str) -> Sensitivity | None:
    """The edit of the earlier sweep, possible today, that is nearest to what the choice does to a group."""
    choice = problem.space.choices[group]
    edits = precedent.candidate.edits.get(group, ())
    removed = 1 - edits[0].kept(choice.group.width) if edits else 0.0
    methods = {edit.method for edit in edits}

    def possible(point: Sensitivity) -> bool:
        option = (point.edit.transform, point.edit.level)
        return point.edit.method in choice.methods and option in {(o.transform, o.level) for o in choice.ladder}

    points = [point for point in precedent.profile if point.group == group and possible(point)]
    return min(points, key=lambda p: (p.edit.method not in methods, abs(p.removed - removed)), default=None)


def replay(ledger: Ledger, executor: Executor, precedent: Precedent) -> None:
    """Evaluate the choice, where the study has it not yet; a trial like any other."""
    candidate = ledger.problem.space.adapted(precedent.candidate)
    assert candidate is not None  # noqa: S101 # whoever calls has seen that the space has its groups
    proposal = prior_proposal(candidate)
    if proposal.label in ledger.labels:
        return
    pending = ledger.study.ask(proposal)
    plan = ledger.problem.resolve(candidate)
    executor.submit(0, Job(candidate, plan))
    _, evaluation = executor.wait()
    ledger.tell(pending, plan.key, evaluation)

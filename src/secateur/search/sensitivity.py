"""The sensitivity sweep: each group edited alone, by a few options, and by each method once: what does it do to the outputs?

These are probes on calibration images, not trials: they say nothing about accuracy, cost a tenth of an evaluation, and do not count
against the budget. Together with the exact knapsack they are what makes the first candidates good ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from pydantic import TypeAdapter

from secateur.records import Evaluation, Fidelity, Job, Sensitivity, earlier
from secateur.search.executor import Executor
from secateur.search.ledger import Ledger
from secateur.search.study import Study
from secateur.search_spaces import Option, SearchSpace

Probe = tuple[str, Option, str]
"""Group, option and method: of an edit that is tried alone."""
_SENSITIVITIES: TypeAdapter[tuple[Sensitivity, ...]] = TypeAdapter(tuple[Sensitivity, ...])
KEPT_AS = "sensitivities"
"""Name under which the study keeps them."""
LEVELS = 3
"""Options of a group at which it is probed."""
PER_TRIAL = 2
"""Probes for each trial of the budget, at the most: beyond that, the methods are not compared group by group."""


def sweep(ledger: Ledger, executor: Executor, best: Mapping[str, str], budget: int) -> tuple[Sensitivity, ...]:
    """The sensitivities of this study: measured once, read back after a restart.

    best: transform → its method that suits the network best.
    """
    if ledger.study.board.kept(KEPT_AS) is not None:
        return known_sensitivities(ledger.study)
    space = ledger.problem.space
    probes = list(_probes(space, best, every_method=True))
    if len(probes) > PER_TRIAL * budget:
        probes = list(_probes(space, best, every_method=False))
    sensitivities = probed(ledger, executor, probes)
    ledger.study.board.keep(KEPT_AS, _SENSITIVITIES.dump_json(sensitivities).decode())
    return sensitivities


def probed(ledger: Ledger, executor: Executor, probes: Sequence[Probe]) -> tuple[Sensitivity, ...]:
    """What single edits do; an edit that fails is left out."""
    candidates = [ledger.problem.space.only(*probe) for probe in probes]
    plans = [ledger.problem.resolve(candidate) for candidate in candidates]
    evaluations: dict[int, Evaluation] = {}
    waiting = list(range(len(probes)))[::-1]
    under_way = 0
    while waiting or under_way:
        while waiting and under_way < executor.workers:
            number = waiting.pop()
            executor.submit(number, Job(candidates[number], plans[number], fidelity=Fidelity(probe=True)))
            under_way += 1
        number, evaluation = executor.wait()
        evaluations[number] = evaluation
        under_way -= 1
    return tuple(
        Sensitivity(
            group,
            edit,
            option.removed,
            evaluations[number].measurements["damage"].value,
            **ledger.problem.exact(plans[number]),
        )
        for number, (group, option, by) in enumerate(probes)
        for edit in option.edits(by)
        if evaluations[number].failure is None
    )


def known_sensitivities(study: Study) -> tuple[Sensitivity, ...]:
    """What the sweep of this study has found, nothing where it has not come to that."""
    return _SENSITIVITIES.validate_python(
        [earlier.sensitivity(s) for s in json.loads(study.board.kept(KEPT_AS) or "[]")]
    )


def _probes(space: SearchSpace, best: Mapping[str, str], *, every_method: bool) -> Iterator[Probe]:
    """Of each transform its best method at options spread evenly, the others at the one in the middle."""
    for name, choice in space.choices.items():
        for transform in choice.transforms:
            methods = choice.methods_of(transform)
            used = best[transform] if best.get(transform) in methods else methods[0]
            cuts = choice.cuts(used)
            count = min(LEVELS, len(cuts))
            for i in range(count):
                yield (
                    name,
                    cuts[(2 * i + 1) * len(cuts) // (2 * count)],
                    used,
                )  # the middle of each of `count` equal parts
            for other in methods if every_method else ():
                if other != used:
                    yield name, cuts[len(cuts) // 2], other

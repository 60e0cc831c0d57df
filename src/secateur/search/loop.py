"""The search: phases of warm starts, then planned and sampled candidates in turn, until a stopping rule holds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from secateur.records import Job
from secateur.search.ledger import Ledger
from secateur.search.planner import knapsack
from secateur.search.sensitivity import Executor, sweep
from secateur.search.study import Asked
from secateur.search.warm_start import Planned, best_method, controls, prior, probe, probed, thresholds

FRUITLESS = 300
"""Asks in a row that lead to networks already seen or rejected unseen, after which the space counts as exhausted."""
DOUBLED = 10
"""Asks for networks that are being evaluated right now, after which it is better to wait for their figures."""
PLANNED, SAMPLED = 6, 2
"""After the warm starts, turn by turn: knapsack points from one fit of the model, and candidates of the sampler."""
PHASES_DONE = "the start phases are done"


@dataclass(frozen=True)
class Stopping:
    """When a search ends: so many evaluated networks, so many seconds from now, so many networks in a row without gain."""

    trials: int
    seconds: float | None = None
    patience: int | None = None

    def reason(self, ledger: Ledger, under_way: int, elapsed: float) -> str | None:
        """Why nothing more is to be begun, or None."""
        if ledger.evaluated + under_way >= min(self.trials, ledger.problem.space.size):
            return "all trials are done" if self.trials <= ledger.problem.space.size else "the space is exhausted"
        if ledger.fruitless >= FRUITLESS:
            return f"{FRUITLESS} asks in a row led to nothing new: the space is exhausted, or the constraints leave no room"
        if self.seconds is not None and elapsed >= self.seconds:
            return "the time is up"
        if self.patience is not None and ledger.without_gain >= self.patience:
            return f"{self.patience} networks in a row have added nothing to the front"
        return None


def search(
    ledger: Ledger,
    executor: Executor,
    stopping: Stopping,
    clock: Callable[[], float] = time.monotonic,
    *,
    phases_only: bool = False,
) -> str:
    """Run (or go on with) a search; the trials are in the ledger and in its study. Returns why it ended.

    phases_only: only the warm starts, for a driver of its own; then, where nothing else ends it, PHASES_DONE is returned.
    """
    problem, study = ledger.problem, ledger.study
    started = clock()
    plan: deque[Planned] = deque()
    phases = _phases(ledger, executor, stopping.trials)
    under_way: dict[int, tuple[Asked, str]] = {}
    twins: dict[str, list[Asked]] = {}  # asked for while the same network was being evaluated
    submitted, sampled, phases_left = 0, SAMPLED, problem.warm_starts
    while True:
        reason = stopping.reason(ledger, len(under_way), clock() - started)
        doubled = 0
        while reason is None and len(under_way) < executor.workers and doubled < DOUBLED:
            if not plan and phases_left:
                if under_way:
                    break  # a phase is planned from what the one before it has found
                phase = next(phases, None)
                phases_left = phase is not None
                plan.extend(p for p in phase or () if p.label not in ledger.labels)
                continue
            if phases_only and not plan:
                reason = PHASES_DONE
                break
            if not plan and problem.warm_starts and sampled >= SAMPLED:
                plan.extend(knapsack(ledger, PLANNED))
                sampled = 0
            planned = plan.popleft() if plan else None
            if planned is None:
                asked = study.ask()
                sampled += 1
            else:
                asked = study.ask(problem.space.values(planned.candidate), planned.arm, planned.label)
            candidate = problem.space.candidate(asked.values)
            key = problem.key(candidate)
            if key in twins:
                twins[key].append(asked)
                doubled += 1
                continue
            rejected = ledger.rejection(candidate, key) if asked.arm in ("sampler", "knapsack", "prior") else None
            known = ledger.known(key, asked.arm)
            if known is not None:
                ledger.tell(asked, key, known.evaluation)
            elif rejected is not None:
                ledger.tell(asked, key, rejected)
            else:
                submitted += 1
                under_way[submitted] = (asked, key)
                twins[key] = []
                executor.submit(submitted, Job(candidate, ledger.hurdles(asked.arm)))
            reason = stopping.reason(ledger, len(under_way), clock() - started)
        if not under_way:
            return reason or "all trials are done"
        number, evaluation = executor.wait()
        asked, key = under_way.pop(number)
        ledger.tell(asked, key, evaluation)
        for twin in twins.pop(key):
            ledger.tell(twin, key, evaluation)


def _phases(ledger: Ledger, executor: Executor, budget: int) -> Iterator[Iterable[Planned]]:
    """Each phase is planned when the one before it has been told; a restarted driver plans what is left.

    The controls come late on purpose: nothing rests on them, and a search that is cut short should have used its time well.
    """
    yield [*thresholds(ledger.problem), *prior(ledger.problem)]
    for _ in range(max(1, min(3, budget // 20)) - probed(ledger)):
        yield [probe(ledger)]
    sweep(ledger, executor, best_method(ledger.problem.space, ledger.trials), budget)
    yield knapsack(ledger, PLANNED)
    yield controls(ledger, budget)

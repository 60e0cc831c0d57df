"""The search: phases of warm starts, then planned and sampled candidates in turn, until a stopping rule holds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from secateur.records import Evaluation, Job
from secateur.search.ledger import Ledger
from secateur.search.study import Asked
from secateur.search.warm_start import Planned, baselines, family, knapsack, prior, sweep

FRUITLESS = 300
"""Asks in a row that lead to networks already seen or rejected unseen, after which the space counts as exhausted."""
DOUBLED = 10
"""Asks for networks that are being evaluated right now, after which it is better to wait for their figures."""
TURN = 3
"""Of so many candidates after the warm starts one is the sampler's; the others come from the re-fitted knapsack."""


class Executor(Protocol):
    """Where evaluations run. Jobs are known by a number that the caller gives."""

    workers: int

    def submit(self, number: int, job: Job) -> None:
        """Begin a job. At most `workers` are under way at a time."""
        ...

    def wait(self) -> tuple[int, Evaluation]:
        """The next finished job. A job that fails ends with an evaluation that says so."""
        ...


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


def search(ledger: Ledger, executor: Executor, stopping: Stopping, clock: Callable[[], float] = time.monotonic) -> str:
    """Run (or go on with) a search; the trials are in the ledger and in its study. Returns why it ended."""
    problem, study = ledger.problem, ledger.study
    started = clock()
    plan: deque[Planned] = deque()
    phases = _phases(ledger, stopping.trials) if problem.warm_starts else iter(())
    under_way: dict[int, tuple[Asked, str]] = {}
    twins: dict[str, list[Asked]] = {}  # asked for while the same network was being evaluated
    submitted, phases_left = 0, True
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
            if not plan and problem.warm_starts and (len(ledger.trials) + len(under_way)) % TURN:
                plan.extend(p for p in knapsack(ledger, 1) if p.label not in ledger.labels)
            planned = plan.popleft() if plan else None
            if planned is None:
                asked = study.ask()
            else:
                asked = study.ask(problem.space.values(planned.candidate), planned.arm, planned.label)
            candidate = problem.space.candidate(asked.values)
            key = problem.key(candidate)
            if key in twins:
                twins[key].append(asked)
                doubled += 1
                continue
            rejected = ledger.rejection(candidate, key) if asked.arm in ("sampler", "knapsack", "prior") else None
            known = ledger.known(key)
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


def _phases(ledger: Ledger, budget: int) -> Iterator[Iterable[Planned]]:
    """Each phase is planned when the one before it has been told. A restarted driver plans the same again.

    The sweep takes at most two fifths of the budget and at least one width of each group.
    """
    space = ledger.problem.space
    yield [*baselines(ledger.problem, budget), *prior(ledger.problem)]
    yield family(ledger, budget)
    levels = max(1, min(3, int(budget * 0.4 / len(space.choices))))
    yield sweep(ledger, levels)
    yield knapsack(ledger, 6)

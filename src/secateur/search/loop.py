"""The search: phases of warm starts, then planned and sampled candidates in turn, until a stopping rule holds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from secateur.records import Job
from secateur.search.executor import Executor
from secateur.search.ledger import RACED, Ledger
from secateur.search.planner import knapsack
from secateur.search.sensitivity import sweep
from secateur.search.study import Pending, Proposal
from secateur.search.warm_start import best_methods, controls, prior, probe, probed, thresholds

FRUITLESS = 300
"""Consecutive proposals that yield no new network (known, or rejected unseen) after which the space counts as exhausted."""
DOUBLED = 10
"""Asks for networks that are being evaluated right now, after which it is better to wait for their figures."""
PLANNED, SAMPLED = 6, 2
"""After the warm starts, turn by turn: knapsack points from one fit of the model, and candidates of the sampler."""
TIME_UP = "the time is up"
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
            return TIME_UP
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
    started = clock()
    turns = _Turns(ledger, executor, stopping.trials, phases_only=phases_only)
    work = _Work(ledger, executor)
    while True:
        doubled = 0
        reason = stopping.reason(ledger, len(work.under_way), clock() - started)
        while reason is None and len(work.under_way) < executor.workers and doubled < DOUBLED:
            pending = turns.next(idle=not work.under_way)
            if pending is None:
                reason = PHASES_DONE if turns.over else None
                break
            doubled += not work.begin(pending)
            reason = stopping.reason(ledger, len(work.under_way), clock() - started)
        if not work.under_way:
            return reason or "all trials are done"
        work.finish()


class _Turns:
    """Picks the source of the next trial: the plan of a phase, the knapsack, or the sampler.

    over: only the phases were requested, and they have finished.
    """

    def __init__(self, ledger: Ledger, executor: Executor, budget: int, *, phases_only: bool) -> None:
        self.over = False
        self._ledger, self._phases_only = ledger, phases_only
        self._phases = _phases(ledger, executor, budget)
        self._in_phases = ledger.problem.warm_starts
        self._plan: deque[Proposal] = deque()
        self._sampled = SAMPLED

    def next(self, *, idle: bool) -> Pending | None:
        """The next trial; None where the one under way must be waited for, or where the phases are over."""
        problem, study = self._ledger.problem, self._ledger.study
        while not self._plan and self._in_phases:
            if not idle:
                return None  # a phase is planned from what the one before it has found
            phase = next(self._phases, None)
            self._in_phases = phase is not None
            self._plan.extend(p for p in phase or () if p.label not in self._ledger.labels)
        if not self._plan and self._phases_only:
            self.over = True
            return None
        if not self._plan and problem.warm_starts and self._sampled >= SAMPLED:
            self._plan.extend(knapsack(self._ledger, PLANNED))
            self._sampled = 0
        if not self._plan:
            self._sampled += 1
            return study.ask()
        return study.ask(self._plan.popleft())


class _Work:
    """What is being evaluated. under_way: job number → trial and the key of its network."""

    def __init__(self, ledger: Ledger, executor: Executor) -> None:
        self.under_way: dict[int, tuple[Pending, str]] = {}
        self._ledger, self._executor = ledger, executor
        self._twins: dict[str, list[Pending]] = {}  # asked for while the same network was being evaluated
        self._submitted = 0

    def begin(self, pending: Pending) -> bool:
        """Evaluate a trial, or tell it at once where its figures are known or not wanted. False: it waits for its twin."""
        ledger, problem = self._ledger, self._ledger.problem
        candidate, arm = pending.proposal.candidate, pending.proposal.arm
        plan = problem.resolve(candidate)
        key = plan.key
        if key in self._twins:
            self._twins[key].append(pending)
            return False
        known = ledger.known(key, arm)
        rejected = ledger.rejection(candidate, plan) if known is None and arm in RACED else None
        if known is not None:
            ledger.tell(pending, key, known.evaluation)
        elif rejected is not None:
            ledger.tell(pending, key, rejected)
        else:
            self._submitted += 1
            self.under_way[self._submitted] = (pending, key)
            self._twins[key] = []
            self._executor.submit(self._submitted, Job(candidate, plan, ledger.hurdles(arm)))
        return True

    def finish(self) -> None:
        """Wait for one evaluation and tell it, to its twins as well."""
        number, evaluation = self._executor.wait()
        pending, key = self.under_way.pop(number)
        for each in (pending, *self._twins.pop(key)):
            self._ledger.tell(each, key, evaluation)


def _phases(ledger: Ledger, executor: Executor, budget: int) -> Iterator[Iterable[Proposal]]:
    """Each phase is planned when the one before it has been told; a restarted driver plans what is left.

    The controls come late on purpose: nothing rests on them, and a search that is cut short should have used its time well.
    """
    yield [*thresholds(ledger.problem), *prior(ledger.problem)]
    for _ in range(max(1, min(3, budget // 20)) - probed(ledger)):
        yield [probe(ledger)]
    sweep(ledger, executor, best_methods(ledger.problem.space, ledger.trials), budget)
    yield knapsack(ledger, PLANNED)
    yield controls(ledger, budget)

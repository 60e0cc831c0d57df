"""Between search and workers: jobs are lent what they may wait for a quiet device; latency intervals get their due width."""

from __future__ import annotations

from dataclasses import replace

from secateur.evaluators.self_comparison import widened
from secateur.evaluators.waiting import CANDIDATE, WaitingBudget
from secateur.records import Evaluation, Job
from secateur.search.executor import Executor


class WithAllowances:
    """An executor around another one, on the driver's side."""

    def __init__(self, executor: Executor, budget: WaitingBudget, widening: float) -> None:
        """widening: of latency intervals, see `secateur.evaluators.self_comparison`."""
        self.workers, self._executor, self._budget, self._widening = executor.workers, executor, budget, widening

    def submit(self, number: int, job: Job) -> None:
        """Begin a job, with what it may wait now."""
        self._executor.submit(number, replace(job, allowance=self._budget.allowance(CANDIDATE)))

    def wait(self) -> tuple[int, Evaluation]:
        """The next finished job; what it has waited is charged."""
        number, evaluation = self._executor.wait()
        self._budget.spend(evaluation.waited)
        return number, replace(evaluation, measurements=widened(evaluation.measurements, self._widening))

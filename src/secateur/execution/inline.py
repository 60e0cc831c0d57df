"""Evaluations in the driver's own process: for formulas, benchmarks and tests. No limits, no protection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from secateur.records import Evaluation, Job


class Inline:
    """An executor whose one worker is the caller."""

    workers = 1

    def __init__(self, evaluate: Callable[[Job], Evaluation]) -> None:
        self._evaluate = evaluate
        self._jobs: deque[tuple[int, Job]] = deque()

    def submit(self, number: int, job: Job) -> None:
        """Keep the job for the next `wait`."""
        self._jobs.append((number, job))

    def wait(self) -> tuple[int, Evaluation]:
        """Do the oldest job."""
        number, job = self._jobs.popleft()
        return number, self._evaluate(job)

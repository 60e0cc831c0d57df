"""What a search asks of the place where evaluations run; `secateur.execution` has two such places."""

from __future__ import annotations

from typing import Protocol

from secateur.records import Evaluation, Job


class Executor(Protocol):
    """Where evaluations run. Jobs are known by a number that the caller gives."""

    workers: int

    def submit(self, number: int, job: Job) -> None:
        """Begin a job. At most `workers` are under way at a time."""
        ...

    def wait(self) -> tuple[int, Evaluation]:
        """The next finished job. A job that fails ends with an evaluation that says so."""
        ...

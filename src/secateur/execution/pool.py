"""Worker processes on this machine. A worker that dies is replaced and its candidate tried again; one that hangs is ended.

A finalist's training is not tried again here: beside what, and whether at all, is for who asked for it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from secateur import errors
from secateur.errors import StateError
from secateur.execution.protocol import DRIVER, EVALUATION, JOB, TRAINING_JOB, OnEpoch
from secateur.records import Evaluation, Job, TrainingJob
from secateur.redaction import scrubbed

MOST = 300
"""Characters of a worker's last line that an error shows."""
LAST_WORDS = 10.0
"""Seconds in which a worker ends that can say nothing any more."""
ATTEMPTS = 3
"""Crashes of its workers after which a candidate counts as failed, and failed starts after which the run ends."""


@dataclass(frozen=True)
class Trained:
    """How a training has ended; what it gave is in the finalist's folder. failure: why it gave nothing. died: its worker did."""

    failure: str | None = None
    died: bool = False


@dataclass
class _Task:
    number: int
    job: Job | TrainingJob
    on_epoch: OnEpoch
    attempts: int = 0

    @property
    def trains(self) -> bool:
        """Whether nobody can say how long it may take."""
        return isinstance(self.job, TrainingJob) or self.job.fidelity.steps > 0

    @property
    def message(self) -> dict[str, Any]:
        """What the worker is told."""
        if isinstance(self.job, TrainingJob):
            return {"number": self.number, "training": TRAINING_JOB.dump_python(self.job, mode="json")}
        return {"number": self.number, "job": JOB.dump_python(self.job, mode="json")}

    def failed(self, reason: str) -> Evaluation | Trained:
        """The answer where there is none. reason: what became of its worker."""
        if isinstance(self.job, TrainingJob):
            return Trained(reason, died=True)
        return Evaluation(self.job.candidate, "", {}, reason, attempts=self.attempts)


class _Worker:
    """One process, and what it is doing."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float) -> None:
        """seconds: until it must be ready."""
        self.log, self.ready = log, False
        self.task: _Task | None = None
        self.deadline = time.monotonic() + seconds
        self._rest = b""
        with log.open("ab") as errors:
            self.process = subprocess.Popen(  # noqa: S603 # our own interpreter and module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=dict(environment)
            )
        os.set_blocking(self.output.fileno(), False)

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout is not None  # noqa: S101 # it was opened with a pipe
        return self.process.stdout

    def messages(self) -> list[dict[str, Any]] | None:
        """What it has said since; None where it is gone."""
        data = self.output.read()
        if data == b"":
            return None
        lines = (self._rest + (data or b"")).split(b"\n")
        self._rest = lines.pop()
        return [json.loads(line) for line in lines]

    def begin(self, task: _Task, seconds: float) -> None:
        """Send a task; a worker that has just died is noticed at the next look."""
        task.attempts += 1
        self.task, self.deadline = task, time.monotonic() + seconds
        assert self.process.stdin is not None  # noqa: S101 # it was opened with a pipe
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(task.message).encode() + b"\n")
            self.process.stdin.flush()

    def end(self) -> int:
        """Kill it and wait. Returns how it ended."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        return self.process.wait()


class Pool:
    """An executor of `workers` processes. command: of one worker; each speaks `secateur.execution.protocol`.

    Use it as a context manager: no process stays behind.
    """

    def __init__(
        self,
        command: Sequence[str],
        workers: int,
        logs: Path,
        *,
        seconds: float = 600.0,
        preparation: float = 600.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the processes.

        logs: a folder for what they print. seconds: a job that does not train may take so long. preparation: so long until a
        worker is ready.
        """
        self.workers, self._command, self._logs, self._seconds = workers, command, logs, seconds
        self._preparation = preparation
        self._failed_starts = 0
        self._environment = {**(environment or os.environ), DRIVER: str(os.getpid())}
        self._selector = selectors.DefaultSelector()
        self._waiting: deque[_Task] = deque()
        self._finished: deque[tuple[int, Evaluation | Trained]] = deque()
        logs.mkdir(parents=True, exist_ok=True)
        self._pool = [self._start(i) for i in range(workers)]

    def _start(self, index: int) -> _Worker:
        worker = _Worker(self._command, self._environment, self._logs / f"worker-{index}.log", self._preparation)
        self._selector.register(worker.output, selectors.EVENT_READ, index)
        return worker

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do."""
        for worker in self._pool:
            worker.end()
        self._pool.clear()
        self._selector.close()

    def submit(self, number: int, job: Job | TrainingJob, on_epoch: OnEpoch = lambda _epoch, _loss: None) -> None:
        """Queue a job for the next worker that is free. on_epoch: of a training, called while somebody waits."""
        self._waiting.append(_Task(number, job, on_epoch))
        self._hand_out()

    def _hand_out(self) -> None:
        for worker in self._pool:
            if worker.ready and worker.task is None and self._waiting:
                task = self._waiting.popleft()
                worker.begin(task, math.inf if task.trains else self._seconds)

    def wait(self) -> tuple[int, Evaluation]:
        """The next finished job, where no training is under way.

        Raises StateError where a worker cannot even start, DeviceLost where nothing can be measured, DataUnreadable where a sample
        cannot be read.
        """
        number, answer = self._next()
        assert isinstance(answer, Evaluation)  # noqa: S101 # nothing else was asked for
        return number, answer

    def trained(self) -> tuple[int, Trained]:
        """The next finished training, where no other job is under way.

        Raises StateError where a worker cannot even start or the disk takes no more, DataUnreadable where a sample cannot be read,
        and what `on_epoch` raises.
        """
        number, answer = self._next()
        assert isinstance(answer, Trained)  # noqa: S101 # nothing else was asked for
        return number, answer

    def _next(self) -> tuple[int, Evaluation | Trained]:
        while not self._finished:
            now = time.monotonic()
            soonest = min(worker.deadline for worker in self._pool)
            for key, _ in self._selector.select(None if soonest == float("inf") else max(0.0, soonest - now)):
                self._listen(int(key.data))
            for index, worker in enumerate(self._pool):
                if worker.deadline <= time.monotonic() and not worker.ready:
                    self._failed_start(index, f"and was still not ready after {self._preparation:g} s")
                elif worker.deadline <= time.monotonic():
                    self._give_up(index, f"it took longer than {self._seconds:g} s")
        return self._finished.popleft()

    def _listen(self, index: int) -> None:
        worker = self._pool[index]
        messages = worker.messages()
        if messages is None:
            self._on_exit(index)
            return
        for message in messages:
            if "refused" in message:
                raise StateError(f"A worker cannot prepare what the driver could: {message['refused']}")
            if "ends" in message:
                raise getattr(errors, message["error"])(message["ends"])
            if "ready" in message:
                worker.ready, worker.deadline, self._failed_starts = True, float("inf"), 0
            elif worker.task is not None and "epoch" in message:
                worker.task.on_epoch(message["epoch"], message["loss"])
            elif worker.task is not None:
                self._finished.append((worker.task.number, _answer(message, worker.task)))
                worker.task, worker.deadline = None, float("inf")
        self._hand_out()

    def _give_up(self, index: int, reason: str) -> None:
        """End a worker whose job has failed for good, and put another in its place."""
        task = self._pool[index].task
        self._replace(index)
        if task is not None:
            self._finished.append((task.number, task.failed(reason)))
        self._hand_out()

    def _on_exit(self, index: int) -> None:
        """A worker has exited: its job is tried again, a few times; a training is not."""
        worker = self._pool[index]
        task = worker.task
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(LAST_WORDS)  # its pipe is closed before it has an exit code
        if not worker.ready:
            self._failed_start(index)
            return
        code = self._replace(index)
        if task is not None and isinstance(task.job, TrainingJob):
            self._finished.append(
                (task.number, task.failed(f"{_how(code)}{_last_line(worker.log) if code > 0 else ''}"))
            )
        elif task is not None and task.attempts >= ATTEMPTS:
            reason = f"its worker died {task.attempts} times, the last time {_how(code)}"
            self._finished.append((task.number, task.failed(reason)))
        elif task is not None:
            self._waiting.appendleft(task)
        self._hand_out()

    def _failed_start(self, index: int, hung: str | None = None) -> None:
        """Replace a worker that ended before it was ready, or hung. hung: how, where it is still alive.

        Raises StateError where that happens again and again.
        """
        log = self._pool[index].log
        code = self._replace(index)
        self._failed_starts += 1
        if self._failed_starts >= ATTEMPTS:
            what = (
                f"hang before they are ready: the last one was started {hung}"
                if hung
                else (f"end before they are ready, the last one {_how(code)}")
            )
            raise StateError(f"Workers {what}{_last_line(log)}. More is in {log}")

    def _replace(self, index: int) -> int:
        worker = self._pool[index]
        self._selector.unregister(worker.output)
        code = worker.process.poll()
        ended = worker.end()
        self._pool[index] = self._start(index)
        return ended if code is None else code


def _answer(message: dict[str, Any], task: _Task) -> Evaluation | Trained:
    if isinstance(task.job, TrainingJob):
        return Trained(message["trained"])
    return replace(EVALUATION.validate_python(message["evaluation"]), attempts=task.attempts)


def _last_line(log: Path) -> str:
    """`: …`, of a traceback its exception; the rest is for whoever opens the log."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f": {scrubbed(lines[-1].strip())[:MOST]}" if lines else ""


def _how(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"

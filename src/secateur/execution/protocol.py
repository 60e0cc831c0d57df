"""What driver and worker say to each other: one JSON object a line, over the worker's standard input and a private pipe.

driver → worker: {"number": n, "job": Job} or {"number": n, "training": TrainingJob}.
worker → driver: {"ready": true} or {"refused": reason} once, then {"number": n, "evaluation": Evaluation} for every job. For every
training {"number": n, "epoch": e, "loss": l} now and then, and in the end {"number": n, "trained": what it failed of, or null};
what it gives is on disk. Where it is nobody's failure and the run cannot go on (the device that measures is gone, a sample cannot
be read, the disk is full), {"number": n, "ends": reason, "error": its class in `secateur.errors`}.

No pickle; any process that speaks this can be a worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from pydantic import TypeAdapter

from secateur.agent.processes import die_with
from secateur.errors import DataUnreadable, DeviceLost, SecateurError, first_line
from secateur.records import Evaluation, Job, TrainingJob

JOB: TypeAdapter[Job] = TypeAdapter(Job)
TRAINING_JOB: TypeAdapter[TrainingJob] = TypeAdapter(TrainingJob)
EVALUATION: TypeAdapter[Evaluation] = TypeAdapter(Evaluation)
OnEpoch: TypeAlias = Callable[[float, float], None]
"""Told an epoch from 1, or a part of one, and its mean loss."""
DRIVER = "SECATEUR_DRIVER"
"""Names the driver's process id in a worker's environment: who asks only now may have lost it while torch was loaded."""
KILLED_FIRST = 500
"""Of 1000, on top of a worker's share of the memory, where the system looks for a process to kill: the driver shall outlive it."""


@dataclass(frozen=True)
class Skills:
    """What a worker can do. train: returns what the finalist failed of, or None."""

    evaluate: Callable[[Job], Evaluation]
    train: Callable[[TrainingJob, OnEpoch], str | None]


def serve(prepare: Callable[[], Skills], memory_gb: float | None) -> None:
    """A worker's whole life: prepare, then do what comes in until the driver closes the pipe or dies.

    What user code prints goes to standard error, the log of this worker. memory_gb: limit of private memory, in GB of 1e9 bytes.
    """
    die_with(int(os.environ.get(DRIVER, os.getppid())))
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text(str(KILLED_FIRST), encoding="ascii")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to both: the driver decides
    limit_memory(memory_gb)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        try:
            skills = prepare()
        except SecateurError as error:
            _say(out, {"refused": str(error)})
            return
        _say(out, {"ready": True})
        for line in sys.stdin:
            message = json.loads(line)
            try:
                answer = _answer(skills, message, out)
            except SecateurError as error:
                answer = {"ends": str(error), "error": type(error).__name__}
            _say(out, {"number": message["number"], **answer})


def _answer(skills: Skills, message: dict[str, Any], out: IO[str]) -> dict[str, Any]:
    if "training" not in message:
        evaluation = guarded(skills.evaluate, JOB.validate_python(message["job"]))
        return {"evaluation": EVALUATION.dump_python(evaluation, mode="json")}

    def told(epoch: float, loss: float) -> None:
        _say(out, {"number": message["number"], "epoch": epoch, "loss": loss})

    return {"trained": skills.train(TRAINING_JOB.validate_python(message["training"]), told)}


def limit_memory(gigabytes: float | None) -> None:
    """Limit this process's private memory, in GB of 1e9 bytes; None for no limit."""
    if gigabytes is not None:
        limit = int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def guarded(evaluate: Callable[[Job], Evaluation], job: Job) -> Evaluation:
    """Whatever a candidate raises is its failure, with the reason; the worker goes on.

    Raises DeviceLost and DataUnreadable: no candidate's fault.
    """
    try:
        return evaluate(job)
    except (DeviceLost, DataUnreadable):
        raise
    except SecateurError as error:
        return Evaluation(job.candidate, "", {}, str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 # a user's metric or forward may raise anything
        reason = "the worker ran out of memory" if isinstance(error, MemoryError) else type(error).__name__
        return Evaluation(job.candidate, "", {}, f"{reason}: {first_line(error)}")


def _say(out: IO[str], message: object) -> None:
    with contextlib.suppress(BrokenPipeError):  # the driver has gone: nobody is left to tell
        out.write(json.dumps(message) + "\n")
        out.flush()

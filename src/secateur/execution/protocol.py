"""What driver and worker say to each other: one JSON object a line, over the worker's standard input and a private pipe.

driver → worker: {"number": n, "job": Job}. worker → driver: {"ready": true} or {"refused": reason} once, then
{"number": n, "evaluation": Evaluation} for every job; or, where that is nobody's evaluation and the driver suspends the search,
{"number": n, "lost": reason, "denied": bool} (the device that measures is gone) or {"number": n, "unreadable": reason} (a sample).

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
from typing import IO

from pydantic import TypeAdapter

from secateur.agent.processes import die_with
from secateur.errors import DataUnreadable, DeviceLost, DeviceRefused, SecateurError, first_line
from secateur.records import Evaluation, Job

JOB: TypeAdapter[Job] = TypeAdapter(Job)
EVALUATION: TypeAdapter[Evaluation] = TypeAdapter(Evaluation)


def serve(prepare: Callable[[], Callable[[Job], Evaluation]], memory_gb: float | None) -> None:
    """A worker's whole life: prepare, then evaluate what comes in until the driver closes the pipe or dies.

    prepare: returns the function that evaluates. What user code prints goes to standard error, the log of this worker.
    memory_gb: limit of private memory, in GB of 1e9 bytes.
    """
    die_with(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to both: the driver decides
    limit_memory(memory_gb)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        try:
            evaluate = prepare()
        except SecateurError as error:
            _say(out, {"refused": str(error)})
            return
        _say(out, {"ready": True})
        for line in sys.stdin:
            message = json.loads(line)
            try:
                evaluation = guarded(evaluate, JOB.validate_python(message["job"]))
            except DeviceLost as error:
                lost = {"lost": str(error), "denied": isinstance(error, DeviceRefused)}
                _say(out, {"number": message["number"], **lost})
                continue
            except DataUnreadable as error:
                _say(out, {"number": message["number"], "unreadable": str(error)})
                continue
            _say(out, {"number": message["number"], "evaluation": EVALUATION.dump_python(evaluation, mode="json")})


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

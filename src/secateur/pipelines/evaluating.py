"""Where the candidates of a run are evaluated: in worker processes, or in this one for a model that is in no file."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from secateur.definition import PipelineDefinition
from secateur.errors import DefinitionError
from secateur.execution import Inline, Pool
from secateur.execution.protocol import guarded
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.stages import evaluation_of
from secateur.pipelines.state import RunFolder
from secateur.records import Evaluation, Job
from secateur.search.executor import Executor
from secateur.workloads.live import is_live

LEAST_PREPARATION, SLOWER_PREPARATION = 600.0, 10.0
"""A worker that is not ready after so many seconds, and so many times what the driver itself needed, hangs."""


def workers(prepared: Prepared, run: RunFolder, device: str, *, few: bool = False) -> AbstractContextManager[Executor]:
    """The processes that evaluate candidates of this run; a model that is in no file is evaluated in this one.

    device: that candidates are trained on, where they are. few: candidates, for which this process will do: another one takes
    seconds to start.
    """
    settings = prepared.definition.search
    if few or is_live(prepared.definition.workload):
        return nullcontext(Inline(partial(_evaluated, prepared, device)))
    threads = max(1, (os.cpu_count() or 1) // settings.workers)
    command = [sys.executable, "-m", "secateur.pipelines.worker", str(run.path), "--device", device]
    command += ["--training-threads", str(threads)]
    if settings.limits.memory_gb is not None:
        command += ["--memory-gb", str(settings.limits.memory_gb)]
    patience = max(LEAST_PREPARATION, SLOWER_PREPARATION * prepared.seconds)
    return Pool(command, settings.workers, run.path / "workers", seconds=settings.limits.seconds, preparation=patience)


def _evaluated(prepared: Prepared, device: str, job: Job) -> Evaluation:
    """What a worker would do, in this process, whose number of threads is left as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if job.fidelity.steps else prepared.definition.evaluator.threads)
    try:
        return guarded(partial(evaluation_of, prepared, device=device), job)
    finally:
        torch.set_num_threads(before)


def check_live(definition: PipelineDefinition) -> None:
    """Raises DefinitionError where a model that is in no file is to be evaluated in other processes."""
    search_settings = definition.search
    if not is_live(definition.workload):
        return
    for key, wanted in (("engine", "optuna"), ("workers", 1)):
        if getattr(search_settings, key) != wanted:
            raise DefinitionError(
                f"{search_settings.where(key)}: a model that lives in this process is evaluated in it: '{key}' must be {wanted}. "
                "Write a factory and a pipeline for anything else (`secateur init`)."
            )

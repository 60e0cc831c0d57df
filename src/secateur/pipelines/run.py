"""Run a pipeline: the stages in order, each kept on disk when it is done, so that a killed run goes on where it was."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import torch

from secateur.compression.storage import weights_digest
from secateur.definition import PipelineDefinition, load_pipeline
from secateur.errors import StateError
from secateur.logs import logging_to
from secateur.pipelines.driving import Driver
from secateur.pipelines.evaluating import check_live
from secateur.pipelines.finishing import finish
from secateur.pipelines.listener import Listener, logged, reporting, together
from secateur.pipelines.outcome import Outcome
from secateur.pipelines.preparation import Prepared, check_device, prepare
from secateur.pipelines.reading import prior_front, read_record
from secateur.pipelines.state import DATABASE, RunFolder, locked, open_run, open_state
from secateur.search.storage import storage_errors


def check_training_device(device: str) -> None:
    """Raises StateError where CUDA is asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise StateError("--device cuda: torch sees no CUDA device here. Use --device cpu, or a torch build with CUDA.")


def run_pipeline(
    definition: PipelineDefinition,
    root: Path,
    pipeline: str,
    *,
    device: str = "cpu",
    fresh: bool = False,
    listener: Listener | None = None,
) -> Outcome:
    """Run a definition, or go on with its unfinished run. pipeline: as the user called it, for `resume`.

    Raises the errors of `secateur.errors`: of a definition, workload or model before anything is written; StateError for disk
    trouble at any time; RegistryUnreachable after everything else is done. Where nothing passed the gate, the outcome says so.
    """
    listener = listener or Listener()
    check_training_device(device)
    check_live(definition)
    prior_front(root, definition)  # a run that is not there is refused before anything is written or computed
    open_state(root)
    listener.stage("check")
    with closing(prepare(definition, root, lasting=True, step=listener.step)) as prepared:
        check_device(prepared)
        run = open_run(root, definition, pipeline, identity_of(prepared), fresh=fresh)
        with locked(run):
            return drive(prepared, run, device, listener)


def resume_run(run: RunFolder, *, device: str = "cpu", listener: Listener | None = None) -> Outcome:
    """Go on with a run, from the definition it was started with (overrides included).

    Raises what `run_pipeline` raises, and StateError where the run is finished or where model or device are others by now.
    """
    listener = listener or Listener()
    if run.done:
        raise StateError(f"Run {run.run_id} is finished. See: secateur show {run.run_id}")
    check_training_device(device)
    definition, _ = load_pipeline(str(run.path / "definition.yaml"))
    root = Path(run.project)
    open_state(root)
    listener.stage("check")
    with (
        locked(run),
        closing(prepare(definition, root, groups=run.groups, lasting=True, step=listener.step)) as prepared,
    ):
        if run.identity != identity_of(prepared):
            raise StateError(
                f"Run {run.run_id} was started with other weights, on another device or with another trainer, so what it has done "
                f"does not count here. Start a new one: secateur run {run.pipeline}"
            )
        return drive(prepared, run, device, listener)


def identity_of(prepared: Prepared) -> str:
    """What must be the same for a run to go on: the weights, what the figures are measured on, and the text of a trainer."""
    trained = "" if prepared.trainer is None else f" with {prepared.trainer.name} {prepared.trainer.digest}"
    return f"{weights_digest(prepared.model)[:16]} on {prepared.evaluator.device}{trained}"


def drive(
    prepared: Prepared, run: RunFolder, device: str, listener: Listener, search_ends: float | None = None
) -> Outcome:
    """Take a run through what is left of it; whoever calls holds its lock. search_ends: on `time.monotonic`."""
    listener = together(reporting(logged), listener)
    with logging_to(run.log), storage_errors(run.state / DATABASE):
        record = read_record(run) if run.judged else Driver(prepared, run, device, listener, search_ends).through()
        return finish(run, record, listener)

"""Commands that run a pipeline, or say what it would do: run, resume, check, flush."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secateur.cli.options import Device, Json, Pipeline, PipelineProject, Project, RunId, Set

if TYPE_CHECKING:
    from secateur.definition import PipelineDefinition
    from secateur.pipelines.outcome import Outcome


def run(
    pipeline: Pipeline,
    set_: Set = None,
    device: Device = "cpu",
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew although an unfinished run exists.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as one line of JSON, and nothing else on standard output.")
    ] = False,
    project: PipelineProject = None,
) -> None:
    """Run a pipeline; an unfinished run of the same definition is resumed."""
    from secateur.cli.progress import watching
    from secateur.pipelines.run import run_pipeline

    definition, root = _load(pipeline, set_, project)
    with _alone(as_json), watching() as listener:
        outcome = run_pipeline(definition, root, pipeline, device=device_named(device), fresh=fresh, listener=listener)
    _show(outcome, as_json=as_json)


def resume(run_id: RunId = None, device: Device = "cpu", as_json: Json = False, project: Project = Path()) -> None:
    """Resume an unfinished run (the latest one, or RUN_ID)."""
    from secateur.cli.progress import watching
    from secateur.pipelines.run import resume_run
    from secateur.pipelines.state import find_run

    folder = find_run(project.resolve(), run_id, unfinished=True)
    with _alone(as_json), watching() as listener:
        outcome = resume_run(folder, device=device_named(device), listener=listener)
    _show(outcome, as_json=as_json)


def check(pipeline: Pipeline, set_: Set = None, as_json: Json = False, project: PipelineProject = None) -> None:
    """Dry run: all checks, the groups, the search space and an estimate of the time. Nothing is written."""
    from secateur.cli.progress import watching
    from secateur.cli.views import show_check
    from secateur.pipelines.check import check_pipeline

    definition, root = _load(pipeline, set_, project)
    with _alone(as_json), watching() as listener:
        checked = check_pipeline(definition, root, listener)
    show_check(checked, as_json=as_json)


def flush(run_id: RunId = None, project: Project = Path()) -> None:
    """Register a finished run in MLflow after the tracking server was unreachable."""
    from secateur.cli.progress import watching
    from secateur.pipelines.finishing import finish_run
    from secateur.pipelines.state import find_run

    folder = find_run(project.resolve(), run_id)
    with watching() as listener:
        outcome = finish_run(folder, listener)
    _show(outcome, as_json=False)


def _load(pipeline: str, texts: list[str] | None, project: Path | None) -> tuple[PipelineDefinition, Path]:
    from secateur.definition import Override, load_pipeline

    return load_pipeline(pipeline, [Override.parse(text) for text in texts or []], project and project.resolve())


def device_named(device: str) -> str:
    """Where fine-tuning is to run. Raises DefinitionError."""
    from secateur.definition import one_of

    return one_of(device, ("cpu", "cuda"), "--device", "device")


def _show(outcome: Outcome, *, as_json: bool) -> None:
    """Print the outcome. Raises NothingBetter where nothing passed the gate."""
    from secateur.cli.views import show_outcome

    if as_json:
        sys.stdout.write(json.dumps(outcome.plain()) + "\n")
    else:
        show_outcome(outcome)
    outcome.require_better()


@contextlib.contextmanager
def _alone(as_json: bool) -> Iterator[None]:  # noqa: FBT001 # the flag of the command line
    """Where the result goes to standard output as JSON, whatever user code prints goes to standard error."""
    if not as_json:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield

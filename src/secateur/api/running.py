"""`run` and `check` of a definition: a name, a file, a mapping, or a validated definition."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.api.callbacks import Callbacks, listener_of
from secateur.api.finished import Run
from secateur.definition import Override, PipelineDefinition, load_pipeline, one_of, pipeline_from
from secateur.pipelines.check import Checked, check_pipeline
from secateur.pipelines.run import run_pipeline
from secateur.pipelines.state import read_run

Definition = str | Path | Mapping[str, Any] | PipelineDefinition
"""A name in pipelines/, a path to a YAML file, what such a file holds as a mapping, or what was validated before."""
Overrides = Mapping[str, Any]
"""Dotted key → value, as `--set` takes them: `{"search.trials": 30}`."""


def run(
    definition: Definition,
    *,
    set: Overrides | None = None,  # noqa: A002 # the name that the command line has
    project: str | Path | None = None,
    device: str = "cpu",
    fresh: bool = False,
    callbacks: Callbacks = (),
    progress: bool = True,
) -> Run:
    """Run a pipeline, or go on with its unfinished run: `secateur run`.

    project: the folder whose `mlruns/` holds the run; by default the one that the file lies in, else the working directory.
    device: where fine-tuning runs, `cpu` or `cuda`. fresh: start anew although an unfinished run exists. callbacks: a Listener, a
    function that takes a Progress, or several of them. progress: print a line now and then.

    Raises the errors of `secateur.errors`, as the command line prints them. Where nothing passed the gate, `Run.best` is None.
    """
    parsed, root = loaded(definition, set, project)
    one_of(device, ("cpu", "cuda"), "device", "device")
    listener = listener_of(callbacks, progress=progress)
    name = (
        definition if isinstance(definition, str) else str(definition) if isinstance(definition, Path) else parsed.name
    )
    outcome = run_pipeline(parsed, root, name, device=device, fresh=fresh, listener=listener)
    return Run(read_run(outcome.folder))


def check(
    definition: Definition,
    *,
    set: Overrides | None = None,  # noqa: A002 # the name that the command line has
    project: str | Path | None = None,
) -> Checked:
    """Everything that a run does before its search, with an estimate of its time: `secateur check`. Nothing is written."""
    parsed, root = loaded(definition, set, project)
    return check_pipeline(parsed, root)


def loaded(
    definition: Definition, overrides: Overrides | None, project: str | Path | None
) -> tuple[PipelineDefinition, Path]:
    """The validated definition and its project's folder. Raises DefinitionError."""
    parsed = [Override.of(key, value) for key, value in (overrides or {}).items()]
    folder = None if project is None else Path(project).expanduser().resolve()
    if isinstance(definition, (str, Path)):
        return load_pipeline(str(definition), parsed, folder)
    root = folder or Path.cwd()
    if isinstance(definition, Mapping):
        return pipeline_from(definition, parsed, root), root
    return pipeline_from(definition.as_written(), parsed, root) if parsed else definition, root

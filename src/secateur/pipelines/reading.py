"""What finished runs have left: their records, what they have registered, and the front that another run starts from."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter

from secateur.definition import PipelineDefinition
from secateur.errors import DefinitionError, SecateurError, StateError, first_line
from secateur.pipelines.state import RunFolder, find_run
from secateur.records import Candidate, RunRecord, Version, earlier
from secateur.registry.tracking import Registered, Tracking
from secateur.search.front import front
from secateur.search.ledger import feasible, own

RECORD: TypeAdapter[RunRecord] = TypeAdapter(RunRecord)
VERSIONS: TypeAdapter[list[Version]] = TypeAdapter(list[Version])


def read_record(run: RunFolder) -> RunRecord:
    """A finished run's record. Raises StateError where the run has not got that far."""
    if not run.judged:
        raise StateError(f"Run {run.run_id} is not finished. Go on with: secateur resume {run.run_id}")
    return record_from(run.path / "record.json")


def record_from(file: Path) -> RunRecord:
    """A record by its file. Raises StateError where it cannot be read."""
    try:
        return RECORD.validate_python(earlier.record(json.loads(file.read_bytes())))
    except (ValueError, KeyError, TypeError) as error:  # no JSON, other keys, other values
        raise StateError(
            f"{file} was written by another version of secateur, or is damaged: {first_line(error)}. Its report is still there: "
            f"{file.with_name('report.html')}"
        ) from error


def record_of_version(server: Tracking, version: Registered, folder: Path) -> RunRecord | None:
    """The record of the run that made a registered version, None where its run has none. folder: where it is fetched to.

    Raises StateError where it cannot be read.
    """
    parent = server.parent(version.run)
    file = server.file_of_run(parent, "record.json", folder) if parent else None
    return None if file is None else record_from(file)


def versions_of(run: RunFolder) -> list[Version] | None:
    """What the run has registered, None where nothing has been sent yet."""
    file = run.path / "registry.json"
    return VERSIONS.validate_json(file.read_bytes()) if file.is_file() else None


def prior_front(root: Path, definition: PipelineDefinition) -> list[Candidate]:
    """The front that an earlier run of a project found, for `search.warm_start`.

    root: the project's folder. Raises DefinitionError where there is no such run, or where it is not finished.
    """
    name = definition.search.warm_start
    if name is None:
        return []
    try:
        record = read_record(find_run(root, name))
    except SecateurError as error:
        raise DefinitionError(
            f"{definition.search.where('warm_start')}: 'warm_start' must name an earlier run. {error}"
        ) from error
    return front_of(record)


def front_of(record: RunRecord) -> list[Candidate]:
    """The networks on the front of a run's search."""
    sound = feasible(own(record.trials), record.goals)
    return [e.candidate for e in front([t.evaluation for t in sound if t.arm != "dense"], record.objectives)]

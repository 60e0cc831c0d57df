"""What a run keeps of the dense model: its figures on each data role, and what tells the data apart."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import TypeAdapter

from secateur.errors import EvaluationFailed, StateError
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.stages import dense_on
from secateur.pipelines.state import RunFolder
from secateur.records import ROLES, Measurement
from secateur.registry import DENSE
from secateur.workloads.roles import digest

_MEASUREMENTS: TypeAdapter[Mapping[str, Measurement]] = TypeAdapter(Mapping[str, Measurement])


def save_digests(prepared: Prepared, run: RunFolder) -> None:
    """Keep a digest of each data role, taken once per run."""
    if not (run.path / "data.json").is_file():
        digests = {role: digest(getattr(prepared.workload.data, role)) for role in ROLES}
        write(run.path / "data.json", json.dumps(digests))


def dense_figures(prepared: Prepared, run: RunFolder, role: str) -> Mapping[str, Measurement]:
    """The dense model's figures, measured once per run."""
    file = run.folder(DENSE) / f"{role}.json"
    if file.is_file():
        return _MEASUREMENTS.validate_json(file.read_bytes())
    try:
        measured = dense_on(prepared, role)
    except EvaluationFailed as error:
        raise StateError(f"The dense model itself cannot be measured: {error}") from error
    write(file, _MEASUREMENTS.dump_json(measured, indent=1))
    return measured

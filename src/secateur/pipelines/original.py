"""What a run keeps of the dense model: its figures on each data role, an example of its answers, and what tells the data apart."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import numpy as np
import torch
from pydantic import TypeAdapter

from secateur.errors import EvaluationFailed, StateError
from secateur.evaluators.flat import FlatModule
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.stages import dense_on
from secateur.pipelines.state import RunFolder
from secateur.records import ROLES, Measurement
from secateur.registry import DENSE
from secateur.workloads.pytrees import filled, tensors
from secateur.workloads.roles import collect, digest

_MEASUREMENTS: TypeAdapter[Mapping[str, Measurement]] = TypeAdapter(Mapping[str, Measurement])


def save_digests(prepared: Prepared, run: RunFolder) -> None:
    """Keep a digest of each data role, taken once per run."""
    if not (run.path / "data.json").is_file():
        digests = {role: digest(getattr(prepared.workload.data, role)) for role in ROLES}
        write(run.path / "data.json", json.dumps(digests))


def save_example(prepared: Prepared, run: RunFolder) -> None:
    """Keep an example of what the model takes and returns, as `secateur.pipelines.example` reads it. Raises StateError."""
    inputs, _ = collect(prepared.workload.data.calibration, 2)
    flat = FlatModule(prepared.model, inputs)
    with torch.no_grad():
        outputs = flat(*tensors(inputs))
    try:
        nested = json.dumps(filled(inputs, flat.input_names))
    except TypeError:
        nested = "null"
    arrays = dict(zip((*flat.input_names, *flat.output_names), (*tensors(inputs), *outputs), strict=True))
    buffer = io.BytesIO()
    np.savez(buffer, **{name: x.numpy() for name, x in arrays.items()})
    write(run.path / "example.json", f'{{"inputs": {nested}, "outputs": {json.dumps(flat.output_names)}}}\n')
    write(run.path / "example.npz", buffer.getvalue())


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

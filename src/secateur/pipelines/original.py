"""What a run keeps of the dense model: its figures on each data role, its file, and an example of its answers."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import numpy as np
import torch
from pydantic import TypeAdapter

from secateur.errors import EvaluationFailed, StateError
from secateur.evaluators.onnx_export import OUTPUT, input_names
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.stages import dense_on
from secateur.pipelines.state import RunFolder
from secateur.records import ROLES, Measurement
from secateur.registry import DENSE
from secateur.workloads.roles import collect, digest

_MEASUREMENTS: TypeAdapter[Mapping[str, Measurement]] = TypeAdapter(Mapping[str, Measurement])


def save_example(prepared: Prepared, run: RunFolder) -> None:
    """Two calibration samples and the dense model's answer: signature and input example of what is registered. Data digests."""
    inputs, _ = collect(prepared.workload.data.calibration, 2)
    with torch.no_grad():
        output = prepared.model(*inputs).numpy()
    arrays = {name: x.numpy() for name, x in zip(input_names(len(inputs)), inputs, strict=True)}
    buffer = io.BytesIO()
    np.savez(buffer, **{OUTPUT: output, **arrays})
    write(run.path / "example.npz", buffer.getvalue())
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

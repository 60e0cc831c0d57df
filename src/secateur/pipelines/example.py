"""An example of what a run's model takes and returns: signature and input example of what is registered."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.evaluators.flat import FlatModule
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.state import RunFolder
from secateur.workloads.pytrees import PyTree, filled, tensors
from secateur.workloads.roles import collect

Arrays = Mapping[str, NDArray[Any]]
"""By the names of the ONNX file."""


@dataclass(frozen=True)
class Example:
    """Two calibration samples and the dense model's answer.

    nested: the names of the inputs, nested as the model takes them, in lists and dicts; None where that is no JSON (a dataclass).
    """

    inputs: Arrays
    outputs: Arrays
    nested: Any

    @property
    def given(self) -> PyTree | None:
        """The inputs as the model takes them, None where that is not known."""
        return None if self.nested is None else self._given(self.nested)

    def _given(self, nested: Any) -> PyTree:
        if isinstance(nested, str) and nested in self.inputs:
            return torch.from_numpy(self.inputs[nested])
        if isinstance(nested, dict):
            return {key: self._given(part) for key, part in nested.items()}
        return [self._given(part) for part in nested] if isinstance(nested, list) else nested


def save_example(prepared: Prepared, run: RunFolder) -> None:
    """Keep the example of a run. Raises StateError where the disk does not take it."""
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


def load_example(run: RunFolder) -> Example:
    """The example that `save_example` has kept."""
    description = json.loads((run.path / "example.json").read_text(encoding="utf-8"))
    with np.load(run.path / "example.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    outputs = {name: arrays.pop(name) for name in description["outputs"]}
    return Example(arrays, outputs, description["inputs"])

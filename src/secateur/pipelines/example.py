"""An example of what a run's model takes and returns: signature and input example of what is registered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from secateur.pipelines.state import RunFolder

if TYPE_CHECKING:
    from secateur.workloads.pytrees import PyTree

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
        import torch  # who registers a run does without

        if isinstance(nested, str) and nested in self.inputs:
            return torch.from_numpy(self.inputs[nested])
        if isinstance(nested, dict):
            return {key: self._given(part) for key, part in nested.items()}
        return [self._given(part) for part in nested] if isinstance(nested, list) else nested


def load_example(run: RunFolder) -> Example:
    """The example that a run has kept (`secateur.pipelines.original`)."""
    description = json.loads((run.path / "example.json").read_text(encoding="utf-8"))
    with np.load(run.path / "example.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    outputs = {name: arrays.pop(name) for name in description["outputs"]}
    return Example(arrays, outputs, description["inputs"])

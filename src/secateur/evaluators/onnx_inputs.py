"""Inputs for an ONNX file that comes alone: random ones, in the shapes that it declares."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from secateur.errors import ModelError, first_line
from secateur.evaluators.devices.session import Batches


def random_inputs(content: bytes, batch: int, count: int) -> Batches:
    """So many batches of seeded normal values (integers: zeros and ones) for a serialised ONNX model.

    A first dimension without a number is the batch; another one without a number raises ModelError.
    """
    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception as error:  # protobuf's own exceptions share no base with others
        raise ModelError(f"this is no ONNX model: {first_line(error)}") from error
    stored = {initializer.name for initializer in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in stored]
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(count):
        arrays = []
        for entry in inputs:
            dtype = helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
            shape = _shape(entry, batch)
            floating = np.issubdtype(dtype, np.floating)
            arrays.append((rng.normal(size=shape) if floating else rng.integers(0, 2, shape)).astype(dtype))
        batches.append(arrays)
    return batches


def _shape(entry: onnx.ValueInfoProto, batch: int) -> list[int]:
    dimensions = entry.type.tensor_type.shape.dim
    shape = [d.dim_value if d.HasField("dim_value") else 0 for d in dimensions]
    if shape and shape[0] == 0:
        shape[0] = batch
    if 0 in shape:
        free = [d.dim_param or "?" for d in dimensions[1:] if not d.HasField("dim_value")]
        raise ModelError(
            f"input '{entry.name}' has free dimensions besides its first one ({', '.join(free)}): fix them in the model."
        )
    return shape

"""Inputs for an ONNX file that comes alone: random ones, in the shapes that it declares. What cannot be measured is said so."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper

from secateur.errors import ModelError, first_line
from secateur.evaluators.devices.work import Batches

MOST_BYTES = 2**28
"""Of one batch of inputs: what is larger is a mistake in the model or in `batch`."""
_FIX = "python -m onnxruntime.tools.make_dynamic_shape_fixed --dim_param NAME --dim_value N IN.onnx OUT.onnx"


def random_inputs(content: bytes, batch: int, count: int, name: str = "the model") -> Batches:
    """So many batches of seeded normal values (integers: zeros and ones) for a serialised ONNX model.

    name: of the file, for messages. A first dimension without a number is the batch; another one without a number raises
    ModelError, and so does everything else for which there are no sensible inputs.
    """
    graph = _graph(content, name)
    stored = {initializer.name for initializer in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in stored]
    if not inputs or not graph.output:
        raise ModelError(
            f"{name} has no {'outputs' if inputs else 'inputs'}: there is nothing to run it on or to compare."
        )
    shapes = [(_shape(entry, batch, name), _dtype(entry, name)) for entry in inputs]
    size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes)
    if size > MOST_BYTES:
        raise ModelError(
            f"{name}: one batch of its inputs takes {size / 2**20:,.0f} MiB ({_listed(shapes)}), more than "
            f"{MOST_BYTES / 2**20:.0f}. Export it with smaller inputs, or lower 'batch' in the evaluator."
        )
    rng = np.random.default_rng(0)

    def drawn(shape: list[int], dtype: np.dtype) -> np.ndarray:
        floating = np.issubdtype(dtype, np.floating)
        return (rng.normal(size=shape) if floating else rng.integers(0, 2, shape)).astype(dtype)

    return [[drawn(*each) for each in shapes] for _ in range(count)]


def _graph(content: bytes, name: str) -> onnx.GraphProto:
    if not content:
        raise ModelError(f"{name} is empty: export the model once more.")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own exceptions share no base with others
        raise ModelError(f"{name} is no ONNX model: {first_line(error)}") from error
    if not model.HasField("graph"):
        raise ModelError(f"{name} is no ONNX model: it has no graph. Export it with torch.onnx.export.")
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    if outside:
        places = {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}
        raise ModelError(
            f"{name} keeps its weights in another file ({', '.join(sorted(places)) or 'unnamed'}), which would not travel with "
            "it. Make one file of it: onnx.save(onnx.load('IN.onnx'), 'OUT.onnx'), or export with external_data=False."
        )
    return model.graph


def _dtype(entry: onnx.ValueInfoProto, name: str) -> np.dtype:
    """What numpy, the file that travels and every runtime agree on."""
    code = entry.type.tensor_type.elem_type
    try:
        dtype: np.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(code))
    except KeyError:
        dtype = np.dtype(object)
    if dtype.kind not in "biuf" or not dtype.isbuiltin:
        kind = TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else str(code)
        raise ModelError(
            f"{name}: input '{entry.name}' takes {kind.lower()}: only numbers can be invented. Export it without that input."
        )
    return dtype


def _shape(entry: onnx.ValueInfoProto, batch: int, name: str) -> list[int]:
    if not entry.type.HasField("tensor_type"):
        raise ModelError(
            f"{name}: input '{entry.name}' is no tensor: only tensors can be invented. Export it without that input."
        )
    if not entry.type.tensor_type.HasField("shape"):
        raise ModelError(
            f"{name}: input '{entry.name}' declares no shape: export it with example inputs of a fixed shape."
        )
    dimensions = entry.type.tensor_type.shape.dim
    fixed = [d.dim_value if d.HasField("dim_value") else None for d in dimensions]
    if wrong := [value for value in fixed if value is not None and value < 1]:
        raise ModelError(
            f"{name}: input '{entry.name}' has a dimension of {wrong[0]}; all must be at least 1. Export it with other inputs."
        )
    if free := [d.dim_param or "?" for d, value in zip(dimensions[1:], fixed[1:], strict=True) if value is None]:
        raise ModelError(
            f"{name}: input '{entry.name}' has free dimensions besides its first one ({', '.join(free)}). Give them numbers: {_FIX}"
        )
    return [batch if value is None else value for value in fixed]


def _listed(shapes: list[tuple[list[int], np.dtype]]) -> str:
    return ", ".join("×".join(map(str, shape)) for shape, _ in shapes)

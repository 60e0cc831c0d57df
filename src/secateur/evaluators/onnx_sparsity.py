"""Whether the weights of an ONNX file have the pattern N:M, whose zeros sparse tensor cores skip.

TensorRT takes 2:4 in float16 and int8, on GPUs of compute capability 8.0 (Ampere) or newer: for each output channel and position of
the kernel, of every four input channels in a row two may be non-zero. It takes no grouped convolutions (NVIDIA/TensorRT#4054), and
among layers that have the pattern it picks those that get faster, by its developers' word from some 256 channels on (#3849).
Source: NVIDIA TensorRT developer guide, "Sparsity".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


def misses(file: bytes, n: int = 2, m: int = 4) -> dict[str, str | None]:
    """Why the weight of a layer does not have the pattern N:M along its input channels; None where it has.

    file: a serialised ONNX model. Layers are its Conv, Gemm and MatMul nodes; a weight is an initializer that one of them reads as
    a factor, and must have the pattern in each of them. Windows are channels 0 to M-1, M to 2M-1 and so on. Keys: initializers.
    """
    graph = onnx.load_model_from_string(file).graph
    stored = {entry.name: entry for entry in graph.initializer}
    found: dict[str, str | None] = {}
    for node in graph.node:
        for place, axis in _input_axes(node).items():
            entry = stored.get(node.input[place])
            if entry is not None and len(entry.dims) > 1:
                reason = _reason(numpy_helper.to_array(entry), axis, _attributes(node).get("group", 1), (n, m))
                found[entry.name] = found.get(entry.name) or reason
    return found


def _input_axes(node: onnx.NodeProto) -> dict[int, int]:
    """Place among the inputs → the axis of that operand over which the layer sums."""
    if node.op_type == "Conv":
        return {1: 1}  # (out, in / groups, …)
    if node.op_type == "MatMul":
        return {0: -1, 1: -2}
    if node.op_type == "Gemm":
        given = _attributes(node)
        return {0: 0 if given.get("transA") else 1, 1: 1 if given.get("transB") else 0}
    return {}


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _reason(weight: NDArray[Any], axis: int, groups: int, pattern: tuple[int, int]) -> str | None:
    n, m = pattern
    channels = weight.shape[axis]
    if groups > 1:
        return f"a convolution of {groups} groups has no sparse kernel"
    if channels % m:
        return f"its {channels} input channels are no multiple of {m}"
    windows = np.moveaxis(weight != 0, axis, -1).reshape(-1, m).sum(1)
    over = int((windows > n).sum())
    if over:
        return (
            f"more than {n} non-zeros in {over} of {len(windows)} windows of {m} input channels, up to {windows.max()}"
        )
    return None

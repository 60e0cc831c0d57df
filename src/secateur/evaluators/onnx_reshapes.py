"""Reshapes of an exported graph that hold for any number of channels: the exporter writes down the widths of the dense network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

import numpy as np
import onnx
from onnx import numpy_helper


def free_reshapes(dense: onnx.ModelProto) -> None:
    """Rewrite reshapes so that they count no channels, in place: `[-1, 16, 6, 8]` of (batch, 16, 48) becomes `[0, 0, -1, 8]`."""
    inferred = onnx.shape_inference.infer_shapes(dense, data_prop=True)
    known = {**_shapes(dense.graph.input), **_shapes(inferred.graph.value_info)}
    constants = {i.name: i for i in dense.graph.initializer}
    parts = {node.output[0]: node for node in dense.graph.node if node.op_type == "Concat"}
    for node in dense.graph.node:
        if node.op_type != "Reshape":
            continue
        shape = _freed(_target(node.input[1], constants, parts), known.get(node.input[0], []))
        if shape is not None:
            name = "shape_" + "_".join(map(str, shape)).replace("-", "n")
            if name not in constants:
                constants[name] = numpy_helper.from_array(np.array(shape, np.int64), name)
                dense.graph.initializer.append(constants[name])
            node.input[1] = name
            del node.attribute[:]  # only `allowzero`, which would take the 0 (keep this dimension) literally
    used = {name for node in dense.graph.node for name in node.input}
    for concat in [node for name, node in parts.items() if name not in used]:
        dense.graph.node.remove(concat)
    used = {name for node in dense.graph.node for name in node.input}
    for initializer in [i for i in dense.graph.initializer if i.name not in used]:
        dense.graph.initializer.remove(initializer)


def _target(name: str, constants: Mapping[str, onnx.TensorProto], parts: Mapping[str, onnx.NodeProto]) -> list[int]:
    """A target shape, constant or put together from parts; -1 stands for what is free."""
    if name in constants:
        return [int(size) for size in numpy_helper.to_array(constants[name])]
    if name not in parts:
        return []
    sizes = [
        numpy_helper.to_array(constants[part]).tolist() if part in constants else [-1] for part in parts[name].input
    ]
    return [int(size) for part in sizes for size in part]


def _shapes(values: Iterable[onnx.ValueInfoProto]) -> dict[str, list[int]]:
    """The shapes of values by name; -1 stands for a dimension that is free."""
    return {
        value.name: [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]
        for value in values
    }


def _freed(shape: Sequence[int], given: Sequence[int]) -> list[int] | None:
    """A target shape in which 0 stands for each leading dimension that stays, and -1 for the first that does not.

    given: what is reshaped. None where the free ones, batch first, do not stay: other dimensions are merged with them.
    """
    free = (shape[:1], given[:1]) == ([-1], [-1]) and shape.count(-1) == given.count(-1)
    if not free or prod(shape) != prod(given):
        return None
    stay = next((n for n, pair in enumerate(zip(shape, given, strict=False)) if pair[0] != pair[1]), len(given))
    if -1 in shape[stay:]:
        return None
    return [0] * min(stay, len(shape)) + [-1, *shape[stay + 1 :]][: len(shape) - stay]

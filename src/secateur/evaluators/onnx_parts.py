"""An ONNX model in two parts: the graph, and the values of its large tensors, which no protobuf message holds.

protobuf's own classes hold a tensor two or three times while a message is written, four times while shapes are inferred, and never
give back the memory of one that was cleared. Here a file is put together from the tensors where they lie, each copied once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

LARGE = 1024
"""Bytes above which a tensor's values are kept beside the graph."""
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""Fields of ModelProto, GraphProto and TensorProto. Source: onnx.proto3."""
Buffer = bytes | memoryview


@dataclass(frozen=True)
class OnnxParts:
    """graph: a model whose initializers that `values` names have a shape and a type only. values: initializer name → array."""

    graph: onnx.ModelProto
    values: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, file: bytes) -> OnnxParts:
        """The parts of a serialised model."""
        whole = onnx.load_model_from_string(file)
        values = {}
        for entry in whole.graph.initializer:
            if len(entry.raw_data) > LARGE:
                values[entry.name] = numpy_helper.to_array(entry)
                entry.ClearField("raw_data")
        graph = onnx.ModelProto()
        graph.CopyFrom(whole)  # the original keeps the memory of what was cleared
        return cls(graph, values)

    def value(self, entry: onnx.TensorProto) -> NDArray[Any]:
        """Of an initializer of the graph. Not to be written to."""
        return self.values[entry.name] if entry.name in self.values else numpy_helper.to_array(entry)

    def file(self) -> bytes:
        """The serialised model."""
        rest = onnx.ModelProto()
        rest.CopyFrom(self.graph)
        del rest.graph.initializer[:]
        graph: list[Buffer] = [rest.graph.SerializeToString()]
        for entry in self.graph.graph.initializer:
            tensor = [entry.SerializeToString()]
            if entry.name in self.values:
                tensor = list(_initializer(entry, self.values[entry.name]))
            graph += _field(_INITIALIZER, tensor)
        rest.ClearField("graph")
        return b"".join([rest.SerializeToString(), *_field(_GRAPH, graph)])


def _initializer(entry: onnx.TensorProto, value: NDArray[Any]) -> Iterator[Buffer]:
    head = onnx.TensorProto(name=entry.name, data_type=entry.data_type, dims=value.shape)
    yield head.SerializeToString()
    yield from _field(_RAW_DATA, [np.ascontiguousarray(value).reshape(-1).view(np.uint8).data])


def _field(number: int, content: Sequence[Buffer]) -> list[Buffer]:
    """A field of bytes in protobuf's wire format: its key, how long it is, and what it holds."""
    return [_varint(number << 3 | 2), _varint(sum(map(len, content))), *content]


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all bytes but the last have their highest bit set."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])

"""Names of an ONNX model's inputs and outputs, where the onnx package is not: the few fields of its protobuf that say them.

Source: onnx.proto3 and protobuf's wire format. ModelProto.graph is field 7; GraphProto has initializer 5, input 11, output 12.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Interface:
    """inputs, outputs: names in order. dynamic: whether some input has a dimension without a number."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: bool


def interface_of(content: bytes) -> Interface:
    """content: a serialised ONNX model. Raises ValueError where it is none."""
    try:
        (graph,) = _all(content, 7)
        stored = {_text(tensor, 8) for tensor in _all(graph, 5)}
        entries = [entry for entry in _all(graph, 11) if _text(entry, 1) not in stored]
        inputs = tuple(_text(entry, 1) for entry in entries)
        outputs = tuple(_text(entry, 1) for entry in _all(graph, 12))
        dynamic = any(not _fixed(dimension) for entry in entries for dimension in _dimensions(entry))
    except (IndexError, ValueError) as error:
        raise ValueError("this is no ONNX model") from error
    if not inputs or not outputs:
        raise ValueError("this ONNX model has no inputs or no outputs")
    return Interface(inputs, outputs, dynamic)


def _dimensions(entry: bytes) -> Iterator[bytes]:
    """ValueInfoProto.type (2) .tensor_type (1) .shape (2) .dim (1)."""
    for kind in _all(entry, 2):
        for tensor in _all(kind, 1):
            for shape in _all(tensor, 2):
                yield from _all(shape, 1)


def _fixed(dimension: bytes) -> bool:
    return any(field == 1 for field, _ in _fields(dimension))


def _text(message: bytes, field: int) -> str:
    return b"".join(_all(message, field)).decode()


def _all(message: bytes, field: int) -> list[bytes]:
    return [value for number, value in _fields(message) if number == field and value is not None]


def _fields(message: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Field numbers with their bytes; None for those that hold a number."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind, value = key & 7, None
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("cut off")
            value, at = message[at : at + length], at + length
        elif kind in (_FIXED32, _FIXED64):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("no such wire type")
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at

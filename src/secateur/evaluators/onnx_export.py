"""Export a module to ONNX: torch's dynamo exporter, one file, nothing in it that is not needed to run it."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.compression.gates import gated_blocks
from secateur.errors import ModelError, first_line
from secateur.evaluators.flat import FlatModule
from secateur.evaluators.onnx_parts import LARGE, OnnxParts
from secateur.gating.onnx_graph import graphs, settled
from secateur.gating.prices import prices_of
from secateur.records.workload import NO_AXES, DynamicAxes
from secateur.workloads.pytrees import PyTree, mapped, tensors

OPSET = 18

_PLACE = re.compile(
    r'The following call raised this error:\n\s*File "(?P<file>.+)", line (?P<line>\d+), in .+\n\s*(?P<code>.+)'
)
"""How torch.export names the line of the model on which it gave up."""
_FIXED = re.compile(
    r"inferred a static shape of (?P<size>\d+) for dimension inputs\['given'\]\[(?P<input>\d+)\]\.shape\[(?P<axis>\d+)\]"
)
"""How it says that the model's code holds an axis at the size of the example."""
_STACK = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+), in .+\n\s*(?P<code>.+)')


MOST_BYTES = 2**31 - 2**24
"""Of weights in one ONNX file: a message of protobuf holds 2 GiB, and the graph takes some of them."""


def check_size(model: nn.Module) -> None:
    """Raises ModelError where the weights do not fit into one ONNX file."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    if size > MOST_BYTES:
        raise ModelError(
            f"The model holds {size / 1e9:.1f} GB of weights, and an ONNX file holds at most {MOST_BYTES / 1e9:.1f} GB. Compress a "
            "part of it: a workload whose build_model returns some of its blocks, with what these are given as data."
        )


def export(model: nn.Module, example_inputs: PyTree, dynamic_axes: DynamicAxes = NO_AXES) -> bytes:
    """The module as an ONNX file with a free batch dimension, batch norms folded, metadata stripped.

    example_inputs, dynamic_axes: as in `Workload`. Every input and output tensor has its name, as in `FlatModule`; the first
    dimension of each is `batch`. Gated blocks become `If`, see `secateur.gating.onnx_graph`. Raises ModelError naming the operation
    that cannot be exported, and what `check_size` raises.
    """
    content = exported_parts(model, example_inputs, dynamic_axes).file()
    return settled(content, prices_of(model, example_inputs)) if gated_blocks(model) else content


def exported_parts(model: nn.Module, example_inputs: PyTree, dynamic_axes: DynamicAxes = NO_AXES) -> OnnxParts:
    """The same before it becomes a file: values that the exporter has not computed lie in the module's own memory."""
    check_size(model)
    # A batch of 1 is specialised by the exporter; two samples keep the dimension free.
    samples = mapped(lambda x: torch.cat([x[:1], x[:1]]), example_inputs)
    try:
        flat, given = FlatModule(model.cpu().eval(), samples), tuple(tensors(samples))
        with _quiet():
            program = torch.onnx.export(
                flat,
                given,
                dynamo=True,
                opset_version=OPSET,
                input_names=flat.input_names,
                output_names=flat.output_names,
                # Names: an axis given as `torch.export.Dim` is fixed without a word where the model's code fixes it.
                dynamic_shapes=(tuple({0: "batch", **dynamic_axes.get(name, {})} for name in flat.input_names),),
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever it met; the last line names the operation
        fixed = _FIXED.search(str(error))
        reason = _reason(error) if fixed is None else _fixing(flat, given, fixed)
        raise ModelError(f"The model cannot be exported to ONNX: {reason}") from error
    if program is None:
        raise ModelError("The model cannot be exported to ONNX: the exporter returned nothing.")
    values = _taken_out(program.model)
    exported = program.model_proto
    strip_metadata(exported)
    flat.name_as_in_the_model(exported)
    return OnnxParts(exported, {flat.own_name(name): value for name, value in values.items()})


def _taken_out(model: Any) -> dict[str, NDArray[Any]]:
    """The values of large initializers, which the model (of onnx_ir) then only refers to, in place."""
    from onnx_ir import ExternalTensor

    values = {}
    for name, entry in model.graph.initializers.items():
        tensor = entry.const_value
        if tensor is not None and tensor.nbytes > LARGE:
            values[name] = tensor.numpy()
            entry.const_value = ExternalTensor("", None, None, tensor.dtype, shape=tensor.shape, name=name)
    return values


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove source lines, local paths and intermediate shapes, in place: about 6 % of a file, and nobody else's business."""
    model.producer_name, model.producer_version, model.doc_string = "secateur", "", ""
    del model.metadata_props[:]
    model.graph.name = "main"
    for graph in graphs(model.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        del graph.value_info[:]
        for element in (*graph.node, *graph.initializer, *graph.input, *graph.output):
            element.ClearField("doc_string")
            del element.metadata_props[:]


def _reason(error: BaseException) -> str:
    """The innermost cause in one line, with the place in the model: the exporter wraps it several times and adds pages."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason = f"{type(error).__name__}: {first_line(error)}"
    place = _PLACE.search(str(error))
    if place is None:
        return reason
    return (
        f"`{place['code']}` at {place['file']}:{place['line']} cannot be traced ({reason}). Write what depends on the data "
        "with torch.where or torch.cond, or leave that part out of the model that the workload builds."
    )


def _fixing(flat: FlatModule, given: tuple[Tensor, ...], fixed: re.Match[str]) -> str:
    """Which axis the model holds at the size of the example, and on which line, which only a strict trace knows."""
    which, axis = int(fixed["input"]), int(fixed["axis"])
    shapes = tuple({axis: torch.export.Dim.DYNAMIC} if i == which else {} for i in range(len(given)))
    place = "It"
    try:
        with _quiet():
            torch.export.export(flat, given, dynamic_shapes=(shapes,), strict=True)
    except Exception as error:  # noqa: BLE001 # as above; the message has no place then
        for frame in _STACK.finditer(str(error).partition("User stack:")[2]):  # the last one is the innermost
            place = f"`{frame['code']}` at {frame['file']}:{frame['line']}"
    return (
        f"{place} fixes dimension {axis} of '{flat.input_names[which]}' at {fixed['size']}, its size in the example, but it "
        "must be free. Neither loop over that dimension nor compare it with a number: use operations of whole tensors."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs the absence of torchvision and what it then raises, warns of its own deprecations and prints graphs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

"""Export a module to ONNX: torch's dynamo exporter, one file, nothing in it that is not needed to run it."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn

from secateur.errors import ModelError, first_line

OPSET = 18
INPUT, OUTPUT = "input", "output"

_PLACE = re.compile(
    r'The following call raised this error:\n\s*File "(?P<file>.+)", line (?P<line>\d+), in .+\n\s*(?P<code>.+)'
)
"""How torch.export names the line of the model on which it gave up."""


def export(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> onnx.ModelProto:
    """The module as an ONNX model with a free batch dimension, batch norms folded, metadata stripped.

    example_inputs: (batch, …) tensors. Inputs are called `input` (`input_0`, `input_1`, … where there are several), the output
    `output`; the first dimension of each is `batch`. Raises ModelError naming the operation that cannot be exported.
    """
    batch = torch.export.Dim("batch")
    # A batch of 1 is specialised by the exporter; two samples keep the dimension free.
    samples = tuple(torch.cat([x[:1], x[:1]]) for x in example_inputs)
    try:
        with _quiet():
            program = torch.onnx.export(
                model.cpu().eval(),
                samples,
                dynamo=True,
                opset_version=OPSET,
                input_names=input_names(len(samples)),
                output_names=[OUTPUT],
                dynamic_shapes=tuple({0: batch} for _ in samples),
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever it met; the last line names the operation
        raise ModelError(f"The model cannot be exported to ONNX: {_reason(error)}") from error
    if program is None:
        raise ModelError("The model cannot be exported to ONNX: the exporter returned nothing.")
    exported = program.model_proto
    strip_metadata(exported)
    return exported


def input_names(count: int) -> list[str]:
    """The names of the ONNX inputs of a model that takes `count` tensors."""
    return [INPUT] if count == 1 else [f"{INPUT}_{i}" for i in range(count)]


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove source lines, local paths and intermediate shapes, in place: about 6 % of a file, and nobody else's business."""
    model.producer_name, model.producer_version, model.doc_string = "secateur", "", ""
    del model.metadata_props[:]
    graph = model.graph
    graph.name, graph.doc_string = "main", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for element in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        element.doc_string = ""
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs the absence of torchvision, warns of its own deprecations and prints graphs that it cannot trace."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

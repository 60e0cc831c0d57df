"""A finalist's files: exported once, and read by everyone after that."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from secateur.evaluators import Network
from secateur.files import write
from secateur.pipelines.preparation import Prepared


def stored_network(prepared: Prepared, folder: Path, module: nn.Module, macs: int) -> Network | None:
    """A tuned module with the files that were exported for it, None where they were not. folder: the finalist's."""
    onnx, converted = folder / "model.onnx", _converted(prepared, folder)
    if not onnx.is_file():
        return None
    other = converted.read_bytes() if converted.is_file() and converted != onnx else None
    return Network(module, onnx.read_bytes(), macs, other)


def export_into(prepared: Prepared, folder: Path, module: nn.Module, macs: int) -> Network:
    """Export a tuned module, seconds of work. Raises EvaluationFailed, ModelError, and StateError where the disk is full."""
    network = prepared.evaluator.files.exported(module, macs)
    if network.converted is not None:
        write(_converted(prepared, folder), network.converted)
    write(folder / "model.onnx", network.onnx)  # last: where it is, all is
    return network


def _converted(prepared: Prepared, folder: Path) -> Path:
    return folder / f"model.{prepared.evaluator.runtime.format}"

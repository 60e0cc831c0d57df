"""A finalist's files: exported once, in the driver or in a worker, and read by everyone after that."""

from __future__ import annotations

import time
from pathlib import Path

from torch import nn

from secateur.compression.saliency import Saliencies
from secateur.compression.selection import resolve
from secateur.compression.storage import load_compressed
from secateur.errors import EvaluationFailed, ModelError
from secateur.evaluators import Network
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.records import Evaluation, Job


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


def export_for(prepared: Prepared, saliencies: Saliencies, job: Job, folder: Path) -> Evaluation:
    """What a worker does for the driver: export the trained network that lies in a finalist's folder. Only its files matter."""
    started = time.perf_counter()
    removals = resolve(job.candidate, prepared.space.groups, saliencies)
    failure = None
    try:
        module = load_compressed(folder / "compressed", prepared.model)
        export_into(prepared, folder, module, prepared.costs.after(removals))
    except (EvaluationFailed, ModelError) as error:
        failure = str(error)
    return Evaluation(job.candidate, removals.key, {}, failure, time.perf_counter() - started)


def _converted(prepared: Prepared, folder: Path) -> Path:
    return folder / f"model.{prepared.evaluator.runtime.format}"

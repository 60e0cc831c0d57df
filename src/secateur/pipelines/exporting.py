"""A finalist's files: exported once, and read by everyone after that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from torch import nn

from secateur.compression.storage import load_compressed
from secateur.errors import EvaluationFailed
from secateur.evaluators import Network
from secateur.evaluators.onnx_sparsity import misses
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.state import RunFolder
from secateur.records import N_M, Candidate, Group, Recovered


def stored_network(prepared: Prepared, folder: Path, module: nn.Module, macs: int) -> Network | None:
    """A tuned module with the files that were exported for it, None where they were not. folder: the finalist's."""
    onnx, converted = folder / "model.onnx", _converted(prepared, folder)
    if not onnx.is_file():
        return None
    other = converted.read_bytes() if converted.is_file() and converted != onnx else None
    return Network(module, onnx.read_bytes(), macs, other)


def network_of(prepared: Prepared, finalist: Recovered, run: RunFolder) -> Network:
    """A measured finalist with its files. Raises WorkloadError or EvaluationFailed where they are gone."""
    module = load_compressed(run.path / finalist.compressed, prepared.model)
    folder, macs = run.path / finalist.folder, int(finalist.measurements["macs"].value)
    network = stored_network(prepared, folder, module, macs)
    if network is None:
        raise EvaluationFailed(f"the files of {finalist.name} are gone from {folder}")
    return replace(network, quantized=finalist.quantized is not None)


def export_into(prepared: Prepared, folder: Path, module: nn.Module, macs: int) -> Network:
    """Export a tuned module, seconds of work. Raises EvaluationFailed, ModelError, and StateError where the disk is full."""
    network = prepared.evaluator.files.exported(module, macs)
    if network.converted is not None:
        write(_converted(prepared, folder), network.converted)
    write(folder / "model.onnx", network.onnx)  # last: where it is, all is
    return network


def _converted(prepared: Prepared, folder: Path) -> Path:
    return folder / f"model.{prepared.evaluator.runtime.format}"


def patterns_in(file: bytes, candidate: Candidate, groups: Iterable[Group]) -> dict[str, tuple[int, int]]:
    """The patterns N:M of a candidate: the layers of its exported file that have them, and those that were to; see `Recovered`."""
    wanted: dict[str, set[str]] = {}
    for group in groups:
        for edit in candidate.edits.get(group.name, ()):
            if edit.transform == N_M:
                wanted.setdefault(str(edit.level), set()).update(own.layer for own in group.weights)
    found: dict[str, tuple[int, int]] = {}
    for pattern, layers in sorted(wanted.items()):
        reasons = misses(file, *map(int, pattern.split(":")))
        found[pattern] = sum(reasons.get(f"{layer}.weight", "") is None for layer in layers), len(layers)
    return found

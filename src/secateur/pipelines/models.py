"""The models of a finished run, and a folder of them that works without this package."""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from secateur.compression import gates
from secateur.compression.checks import disagreement
from secateur.compression.copies import copied
from secateur.compression.storage import load_compressed
from secateur.definition import load_pipeline, one_of
from secateur.errors import ModelError, WorkloadError
from secateur.files import sha256_of, write
from secateur.pipelines.example import load_example
from secateur.pipelines.reading import read_record
from secateur.pipelines.state import RunFolder
from secateur.records import Measurement, Recovered
from secateur.workloads import attention
from secateur.workloads.loading import build_model, load_workload
from secateur.workloads.pytrees import call

TOLERANCE = 1e-5
"""Largest difference, relative to the largest output, between the run's module and the one that the exported loader makes."""


def finalist_named(run: RunFolder, name: str) -> tuple[Recovered, Measurement | None]:
    """A finalist and its score on test data, if there is one.

    Raises DefinitionError naming the nearest finalist, StateError where the run has not got that far.
    """
    record = read_record(run)
    finalists = {finalist.name: finalist for finalist in record.finalists}
    verdict = record.verdicts.get(one_of(name, finalists, f"run {run.run_id}", "finalist"))
    return finalists[name], verdict.test if verdict else None


def dense_module(run: RunFolder) -> nn.Module:
    """The original module, from the workload's factory. Raises DefinitionError and WorkloadError where it cannot be built."""
    definition, _ = load_pipeline(str(run.path / "definition.yaml"))
    return build_model(load_workload(definition.workload, Path(run.project)))


def onnx_file(run: RunFolder, finalist: Recovered) -> Path:
    """Raises WorkloadError where the finalist failed and has none."""
    file = run.path / finalist.folder / "model.onnx"
    if not file.is_file():
        raise WorkloadError(f"{finalist.name} has no ONNX file: {finalist.failure or f'{file} is gone'}.")
    return file


def export_finalist(
    run: RunFolder, finalist: Recovered, test: Measurement | None, dense: nn.Module, folder: Path
) -> list[Path]:
    """Write a finalist so that it can be used without this package: ONNX, safetensors with JSON, and `load.py`.

    Torch runs no int8 model: beside the ONNX file of one, the torch module is its float32 twin.

    test: its score on test data. dense: the original module. Returns the files. Raises WorkloadError where something of the
    finalist is missing, ModelError where what `load.py` makes of another copy of the original does not compute the same.
    """
    smaller = load_compressed(run.path / finalist.compressed, dense)
    converted = sorted(onnx_file(run, finalist).parent.glob("model.*"))
    contents = {file.name: file.read_bytes() for file in converted}
    contents["model.safetensors"] = save({n: t.detach().clone().contiguous() for n, t in smaller.state_dict().items()})
    contents["load.py"] = (files("secateur.pipelines") / "load_exported.py").read_bytes()
    if any(isinstance(layer, attention.SplitAttention) for layer in smaller.modules()):
        contents["attention.py"] = Path(attention.__file__).read_bytes()
    widths = {name: block.gate.in_features for name, block in gates.gated_blocks(smaller).items()}
    if widths:
        contents["gates.py"] = Path(gates.__file__).read_bytes()
    for name, content in contents.items():
        write(folder / name, content)
    description = {
        "format": 1,
        "run": run.run_id,
        "finalist": finalist.name,
        "precision": {"model.onnx": finalist.precision, "model.safetensors": "float32"},
        "sha256": {name: sha256_of(folder / name) for name in contents if not name.endswith(".py")},
        "measurements": {name: asdict(m) for name, m in finalist.measurements.items()},
        "test": None if test is None else asdict(test),
        "gates": widths,
        "attributes": _changed(gates.gated(copied(dense), widths), smaller),
    }
    write(folder / "model.json", json.dumps(description, indent=1) + "\n")
    _check(run, smaller, dense, folder)
    return [folder / name for name in (*contents, "model.json")]


def _changed(dense: nn.Module, smaller: nn.Module) -> Mapping[str, Mapping[str, Any]]:
    """The whole numbers and tuples of layers that cutting has changed: `conv1.out_channels` and the like."""
    changes = {}
    before = dict(dense.named_modules())
    for name, layer in smaller.named_modules():
        old = vars(before[name])
        changed = {k: v for k, v in vars(layer).items() if type(v) in (int, tuple) and old.get(k) != v}
        if changed:
            changes[name] = changed
    return changes


def _check(run: RunFolder, smaller: nn.Module, dense: nn.Module, folder: Path) -> None:
    """That the loader, as written, makes the same module; where the run's example can be given to it."""
    given = load_example(run).given
    if given is None:
        return
    loaded = runpy.run_path(str(folder / "load.py"))["module"](copied(dense))
    with torch.no_grad():
        difference = disagreement(call(loaded, given), call(smaller, given), TOLERANCE)
    if difference is not None:
        raise ModelError(
            f"The exported torch module differs from the run's by {difference:.3g}: something in it is neither a tensor nor a "
            f"layer's number. Use {folder / 'model.onnx'}, which is checked, or secateur.load_compressed."
        )

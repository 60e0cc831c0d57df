"""A compressed model on disk: its plan as JSON, changed tensors as safetensors; no pickle, no code.

    compressed.json        workload factory, the plan, the candidate, hash of the dense weights
    tensors.safetensors    every tensor that differs from the dense model's once the plan is carried out

A front that has not been recovered therefore costs kilobytes: only batch-norm statistics differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from secateur.compression.copies import copied
from secateur.compression.plan import apply
from secateur.definition import WorkloadReference, expanded
from secateur.errors import WorkloadError
from secateur.files import write
from secateur.records import Candidate, CompressedModel, Plan, earlier
from secateur.workloads.attention import opened
from secateur.workloads.loading import build_model, load_workload

FORMAT = 2

_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
_CANDIDATE: TypeAdapter[Candidate] = TypeAdapter(Candidate)


def save_compressed(compressed: CompressedModel, dense: nn.Module, workload: Mapping[str, Any], folder: Path) -> None:
    """Write a compressed model. workload: factory and options as written in the definition; folder: created where missing.

    Raises StateError where the disk does not take it.
    """
    reference = _tensors(apply(dense, compressed.plan))
    changed = {
        name: tensor.clone()  # tied tensors share memory, which safetensors refuses
        for name, tensor in _tensors(compressed.module).items()
        if not torch.equal(tensor, reference[name])
    }
    write(folder / "tensors.safetensors", save(changed))
    description = {
        "format": FORMAT,
        "workload": dict(workload),
        "dense_sha256": weights_digest(dense),
        "plan": _PLAN.dump_python(compressed.plan, mode="json"),
        "candidate": _CANDIDATE.dump_python(compressed.candidate, mode="json"),
    }
    write(folder / "compressed.json", json.dumps(description, indent=1) + "\n")


def stored(folder: Path, model: nn.Module) -> CompressedModel:
    """A compressed model with what was done to it. model: the dense module. Raises what `load_compressed` raises."""
    module = load_compressed(folder, model)
    description = json.loads((folder / "compressed.json").read_text(encoding="utf-8"))
    read = earlier.compressed(description)
    return CompressedModel(_CANDIDATE.validate_python(read["candidate"]), _PLAN.validate_python(read["plan"]), module)


def load_compressed(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The compressed module, float32, on the CPU, in evaluation mode.

    path: the folder that was written. model: the dense module; by default the workload's factory builds it (paths to user files
    are taken relative to the working directory). Raises WorkloadError where files are missing or damaged, or where tensors that
    were not stored would come from other dense weights than those that were compressed.
    """
    folder = Path(path)
    try:
        description = earlier.compressed(json.loads((folder / "compressed.json").read_text(encoding="utf-8")))
        changed = load_file(folder / "tensors.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise WorkloadError(f"{folder} holds no complete compressed model: {error}") from error
    if description.get("format") != FORMAT:
        raise WorkloadError(
            f"{folder}: format {description.get('format')} is not {FORMAT}; it was written by another version."
        )
    dense = opened(copied(model)) if model is not None else _build(description["workload"], folder)
    smaller = apply(dense, _PLAN.validate_python(description["plan"]))
    missing = set(_tensors(smaller)) - set(changed)
    if missing and weights_digest(dense) != description["dense_sha256"]:
        raise WorkloadError(f"{folder} builds on dense weights that this model does not have (their hashes differ).")
    smaller.load_state_dict(changed, strict=False)
    return smaller.eval()


def _build(workload: Mapping[str, Any], folder: Path) -> nn.Module:
    options = expanded(dict(workload), lambda _: str(folder / "compressed.json"))
    return build_model(load_workload(WorkloadReference(**options), Path.cwd()))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over names and bytes of all tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(module).items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

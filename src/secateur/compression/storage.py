"""A compressed model on disk: removals as JSON, changed tensors as safetensors; no pickle, no code.

    compressed.json        workload factory, removals per layer, the candidate, hash of the dense weights
    tensors.safetensors    every tensor that differs from the dense model's cut one

A front that has not been recovered therefore costs kilobytes: only batch-norm statistics differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from secateur.compression.copies import copied
from secateur.compression.surgery import cut
from secateur.definition import WorkloadReference, expanded
from secateur.errors import WorkloadError
from secateur.files import write
from secateur.records import CompressedModel, Removals
from secateur.workloads.attention import opened
from secateur.workloads.loading import build_model, load_workload

FORMAT = 1


def save_compressed(compressed: CompressedModel, dense: nn.Module, workload: Mapping[str, Any], folder: Path) -> None:
    """Write a compressed model. workload: factory and options as written in the definition; folder: created where missing.

    Raises StateError where the disk does not take it.
    """
    reference = _tensors(cut(dense, compressed.removals))
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
        "removals": {"out": compressed.removals.out, "in": compressed.removals.in_, "roots": compressed.removals.roots},
        "cuts": {name: [choice.method, choice.kept] for name, choice in compressed.candidate.cuts.items()},
    }
    write(folder / "compressed.json", json.dumps(description, indent=1) + "\n")


def load_compressed(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The compressed module, float32, on the CPU, in evaluation mode.

    path: the folder that was written. model: the dense module; by default the workload's factory builds it (paths to user files
    are taken relative to the working directory). Raises WorkloadError where files are missing or damaged, or where tensors that
    were not stored would come from other dense weights than those that were compressed.
    """
    folder = Path(path)
    try:
        description = json.loads((folder / "compressed.json").read_text(encoding="utf-8"))
        changed = load_file(folder / "tensors.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise WorkloadError(f"{folder} holds no complete compressed model: {error}") from error
    if description.get("format") != FORMAT:
        raise WorkloadError(
            f"{folder}: format {description.get('format')} is not {FORMAT}; it was written by another version."
        )
    dense = opened(copied(model)) if model is not None else _build(description["workload"], folder)
    removals = Removals(
        *({n: tuple(i) for n, i in description["removals"][side].items()} for side in ("out", "in", "roots"))
    )
    smaller = cut(dense, removals)
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

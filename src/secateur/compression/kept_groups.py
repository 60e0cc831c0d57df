"""Groups on disk: a run traces and proves them once, and its workers, its resumes and NNI's trials read them.

What is read must be of this model: weights, architecture, example shapes and versions are compared, and two plans of the proof are
repeated, because a changed forward() shows in none of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import nn

from secateur.compression.groups import FoundGroups, Watch, find_groups
from secateur.compression.proof import Proof
from secateur.compression.storage import weights_digest
from secateur.files import write
from secateur.workloads.pytrees import PyTree, tensors


@dataclass(frozen=True)
class _Kept:
    """identity: of what the groups were found in."""

    identity: str
    found: FoundGroups


_KEPT = TypeAdapter(_Kept)


def keep_groups(file: Path, found: FoundGroups, model: nn.Module, example_inputs: PyTree) -> None:
    """Write groups down as JSON. Raises StateError where the disk does not take them."""
    write(file, _KEPT.dump_json(_Kept(_identity(model, example_inputs), found)))


def kept_groups(
    file: Path | None, model: nn.Module, example_inputs: PyTree, watch: Watch = lambda _, __: None
) -> FoundGroups:
    """The groups that a file holds for this model; where there is none, or of another one, they are found anew.

    watch: see `find_groups`. Raises what `find_groups` raises.
    """
    model = model.cpu().eval()
    try:
        kept = _KEPT.validate_json(file.read_bytes()) if file is not None and file.is_file() else None
    except (OSError, ValidationError):  # of another version, or damaged: found again in seconds
        kept = None
    if kept is None or kept.identity != _identity(model, example_inputs):
        return find_groups(model, example_inputs, watch)
    if Proof(model, example_inputs).disproof_together(kept.found.groups) is not None:
        return find_groups(model, example_inputs, watch)
    return kept.found


def _identity(model: nn.Module, example_inputs: PyTree) -> str:
    shapes = [(tuple(x.shape[1:]), str(x.dtype)) for x in tensors(example_inputs)]
    versions = [version(package) for package in ("secateur", "torch", "torch-pruning")]
    return hashlib.sha256(f"{weights_digest(model)} {model} {shapes} {versions}".encode()).hexdigest()

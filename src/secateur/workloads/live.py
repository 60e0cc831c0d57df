"""Workloads that live in this process alone: a model in a notebook, which no factory can build again."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from secateur.definition import WorkloadReference
from secateur.errors import WorkloadError
from secateur.records import ROLES, DataRoles, Workload
from secateur.workloads.pytrees import tensors
from secateur.workloads.samples import collate_of

LIVE = "secateur:compress"
"""Stands for the factory in the definition of such a run."""
_HELD: dict[str, Workload] = {}
_TRAINERS: dict[str, Callable[..., Any]] = {}


@contextlib.contextmanager
def held(workload: Workload, key: str) -> Iterator[None]:
    """Let `load_workload` find a workload under a key (its option `live`) until the end of the block."""
    _HELD[key] = workload
    try:
        yield
    finally:
        del _HELD[key]


@contextlib.contextmanager
def held_trainer(function: Callable[..., Any] | None) -> Iterator[str | None]:
    """Let `found_trainer` find a function until the end of the block, by the name that is given for the definition."""
    if function is None:
        yield None
        return
    name = f"{LIVE}.{getattr(function, '__qualname__', type(function).__name__)}"
    _TRAINERS[name] = function
    try:
        yield name
    finally:
        del _TRAINERS[name]


def found_trainer(name: str) -> Callable[..., Any] | None:
    """The trainer of a definition where `compress` was given it, None where it is named otherwise.

    Raises WorkloadError where it has gone with the process that had it.
    """
    if not name.startswith(LIVE):
        return None
    if name not in _TRAINERS:
        raise WorkloadError(
            "This run was started from Python by secateur.compress: its trainer is in no file. To go on with it, call "
            "secateur.compress with the same trainer."
        )
    return _TRAINERS[name]


def is_live(reference: WorkloadReference) -> bool:
    """Whether the workload is one that only the process which started the run has."""
    return reference.factory == LIVE


def found(reference: WorkloadReference) -> Workload | None:
    """The workload of a definition where it is a live one, None where a factory makes it.

    Raises WorkloadError where the model has gone with the process that had it.
    """
    if not is_live(reference):
        return None
    workload = _HELD.get(str(reference.options.get("live")))
    if workload is None:
        raise WorkloadError(
            "This run was started from Python by secateur.compress: its model and data are in no file. To go on with it, call "
            "secateur.compress with the same model, data and options; to load a result, pass the dense module."
        )
    return workload


def digest_of(data: DataRoles) -> str:
    """Hash of the roles' sizes and of the first and the last sample of each: other data is another run."""
    digest = hashlib.sha256()
    for role in ROLES:
        dataset = getattr(data, role)
        digest.update(f"{role} {len(dataset)}".encode())
        for index in (0, len(dataset) - 1):
            for tensor in tensors(collate_of(dataset)([dataset[index]])):  # where a sample is an image object, say
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]

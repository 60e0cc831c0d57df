"""The data is looked through before long work: a sample that cannot be used shows now, with its role and number."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import WorkloadError
from secateur.records import ROLES, Workload
from secateur.workloads.calls import calling
from secateur.workloads.functions import try_functions
from secateur.workloads.pytrees import OUTPUT, PyTree, call, length, mapped, named, rows
from secateur.workloads.roles import as_tuple
from secateur.workloads.samples import collate_of, in_batches

MOST = 10_000
"""Samples of one role that are looked at; of larger roles a seeded draw."""
SECONDS = 5.0
"""After which no further samples of a role are looked at, beyond the least."""
LEAST = 64
"""Samples of a role that are looked at however slow they are."""
SOME = 64
"""Calibration samples that loss and score are tried on."""
CHUNK = 32
"""Targets that the loss is given at once."""

Kind = tuple[tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class Bounds:
    """How much of a role is looked at. clock: seconds, monotonic."""

    most: int = MOST
    seconds: float = SECONDS
    clock: Callable[[], float] = time.monotonic


USUAL = Bounds()


@dataclass(frozen=True)
class Inspected:
    """looked_at: data role → (samples looked at, samples there are). outputs: the model's for some calibration samples."""

    looked_at: Mapping[str, tuple[int, int]]
    outputs: PyTree


def inspect_workload(workload: Workload, model: nn.Module, bounds: Bounds = USUAL) -> Inspected:
    """Try loss and score, and look through all data roles.

    Each sample must be `(input or inputs, target)` in the shapes and types of `example_inputs`, without NaN or infinity, and the
    loss must take its target beside the model's outputs (a class label outside the outputs is not taken).

    Raises WorkloadError naming role and sample.
    """
    looks = {role: _Look(workload, role) for role in ROLES}
    for look in looks.values():
        look.sample(0)
    calibration = looks["calibration"]
    tried = list(range(min(SOME, calibration.size)))
    each = [calibration.sample(number) for number in tried]
    inputs, targets = next(iter(in_batches(workload.data.calibration, SOME)))
    with calling(f"The model on {len(tried)} calibration samples"), torch.enable_grad():
        outputs = call(model, inputs)
    calibration.try_loss(mapped(torch.detach, outputs), tried, each)
    try_functions(workload, model, outputs, targets)
    outputs = mapped(torch.detach, outputs)
    return Inspected({role: look.through(outputs, bounds) for role, look in looks.items()}, outputs)


class _Look:
    """One data role, sample by sample."""

    def __init__(self, workload: Workload, role: str) -> None:
        self.dataset, self.loss, self.role = getattr(workload.data, role), workload.loss, role
        self.size = len(self.dataset)
        self.collate = collate_of(self.dataset)
        self.expected: list[Kind] = [(tuple(x.shape[1:]), x.dtype) for x in workload.example_inputs]
        self.target: Kind | None = None

    def through(self, outputs: PyTree, bounds: Bounds) -> tuple[int, int]:
        """Look at the samples, in a seeded order. outputs: the model's, for the loss. Returns samples looked at, and there are."""
        order = np.random.default_rng(0).permutation(self.size)[: bounds.most].tolist()
        begun, looked = bounds.clock(), 0
        for start in range(0, len(order), CHUNK):
            if looked >= LEAST and bounds.clock() - begun > bounds.seconds:
                break
            numbers = order[start : start + CHUNK]
            self.try_loss(outputs, numbers, [self.sample(number) for number in numbers])
            looked += len(numbers)
        return looked, self.size

    def sample(self, number: int) -> Tensor:
        """The target of a sample, (1, …), after everything about it has been checked that can be checked alone."""
        inputs, target = self._pair(number)
        for tensor, part in [*((x, "input") for x in inputs), (target, "target")]:
            if not torch.isfinite(tensor).all():
                raise WorkloadError(
                    f"{self._named(number)} holds NaN or infinity in its {part}. Clean the data, or leave the sample out."
                )
        found = [_kind(x) for x in inputs]
        if found != self.expected:
            raise WorkloadError(
                f"{self._named(number)} gives inputs {_shown(found)}; example_inputs are {_shown(self.expected)} (without the "
                "batch). All samples must be alike: resize or crop them in the data set."
            )
        self.target = self.target or _kind(target)
        if _kind(target) != self.target:
            raise WorkloadError(
                f"{self._named(number)} gives a target {_shown([_kind(target)])}, the first sample {_shown([self.target])}. All "
                "targets of a role must be alike."
            )
        return target

    def _pair(self, number: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """A sample as a batch of one."""
        one: Any = self.dataset[number]
        batch = self.collate([one])
        needed = "a pair (input, target) is needed: tensors, or a tuple of tensors as input and one tensor or number as target"
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:  # a pair
            length = f" of {len(one)}" if isinstance(one, (tuple, list)) else ""
            raise WorkloadError(f"{self._named(number)} is a {type(one).__name__}{length}; {needed}.")
        given, target = batch
        if not isinstance(given, (Tensor, tuple, list)) or not all(isinstance(x, Tensor) for x in as_tuple(given)):
            raise WorkloadError(f"{self._named(number)} has a {_type_of(given)} as its input; {needed}.")
        if not isinstance(target, Tensor) or not target.dim():
            raise WorkloadError(f"{self._named(number)} has a {_type_of(target)} as its target; {needed}.")
        return as_tuple(given), target

    def try_loss(self, outputs: PyTree, numbers: list[int], targets: list[Tensor]) -> None:
        """Give the loss targets beside outputs of the model: those of other samples, whose shapes are the same."""
        others = torch.arange(len(targets)) % length(outputs)
        try:
            with torch.no_grad():
                self.loss(rows(outputs, others), torch.cat(targets))
        except WorkloadError as error:
            refused = [i for i, target in enumerate(targets) if self._refuses(rows(outputs, slice(1)), target)]
            if len(refused) == len(targets):  # no sample's fault
                raise
            where = f"samples {', '.join(map(str, sorted(numbers)))}"
            if refused:
                where = f"sample {numbers[refused[0]]}, whose target is {_value(targets[refused[0]])}"
            raise WorkloadError(
                f"{str(error).rstrip('.')}: the data role '{self.role}' at {where}. "
                f"The model's outputs are {_shown_outputs(outputs)}."
            ) from error

    def _refuses(self, outputs: PyTree, target: Tensor) -> bool:
        try:
            with torch.no_grad():
                self.loss(outputs, target)
        except WorkloadError:
            return True
        return False

    def _named(self, number: int) -> str:
        return f"The data role '{self.role}': sample {number}"


def _kind(batch: Tensor) -> Kind:
    return tuple(batch.shape[1:]), batch.dtype


def _shown(kinds: Iterable[Kind]) -> str:
    return ", ".join(f"{shape} {str(dtype).removeprefix('torch.')}" for shape, dtype in kinds)


def _shown_outputs(outputs: PyTree) -> str:
    shapes = {name: tuple(x.shape) for name, x in named(outputs, OUTPUT).items()}
    return (
        str(shapes[OUTPUT])
        if list(shapes) == [OUTPUT]
        else ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    )


def _type_of(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {', '.join(type(inner).__name__ for inner in value) or 'nothing'}"
    return type(value).__name__


def _value(target: Tensor) -> str:
    return str(target.item()) if target.numel() == 1 else f"{tuple(target.shape[1:])} {target.flatten()[:4].tolist()} …"

"""The data is looked through before long work: a sample that cannot be used shows now, with its role and number."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import WorkloadError
from secateur.records import ROLES, Workload
from secateur.records.workload import NO_AXES, DynamicAxes
from secateur.workloads.calls import calling
from secateur.workloads.functions import try_functions
from secateur.workloads.pairs import Unpaired
from secateur.workloads.portions import fitting
from secateur.workloads.pytrees import INPUT, OUTPUT, PyTree, call, joined, length, mapped, named, rows, tensors
from secateur.workloads.samples import collate_of, in_batches

MOST = 10_000
"""Samples of one role that are looked at; of larger roles a seeded draw."""
SECONDS = 5.0
"""After which no further samples of a role are looked at, beyond the least."""
LEAST = 64
"""Samples of a role that are looked at however slow they are."""
SOME = 64
"""Calibration samples that loss and score are tried on, at most."""
CHUNK = 32
"""Targets that the loss is given at once."""

TARGET = "target"
Kinds = Mapping[str, tuple[tuple[int | str, ...], torch.dtype]]
"""Name → shape without the batch (of a dynamic axis its name), and type."""


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

    Each sample must be inputs and target, the inputs in the shapes and types of `example_inputs`, without NaN or infinity, and the
    loss must take its target beside the model's outputs (a class label outside the outputs is not taken). Sizes of `dynamic_axes`
    may differ, and those of targets with them; such targets are not given to the loss.

    Raises WorkloadError naming role and sample.
    """
    looks = {role: _Look(workload, role) for role in ROLES}
    for look in looks.values():
        look.sample(0)
    calibration = looks["calibration"]
    some = max(2, min(SOME, fitting(model, workload.example_inputs, graded=True)))
    tried = list(range(min(some, calibration.size)))
    each = [calibration.sample(number) for number in tried]
    inputs, targets = next(iter(in_batches(workload.data.calibration, some)))
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
        self.axes = workload.dynamic_axes
        self.expected = _kinds(workload.example_inputs, INPUT, self.axes)
        self.target: Kinds | None = None

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

    def sample(self, number: int) -> PyTree:
        """The target of a sample, (1, …), after everything about it has been checked that can be checked alone."""
        inputs, target = self._pair(number)
        for name, tensor in (*named(inputs, INPUT).items(), *named(target, TARGET).items()):
            if not torch.isfinite(tensor).all():
                raise WorkloadError(
                    f"{self._named(number)} holds NaN or infinity in its {name}. Clean the data, or leave the sample out."
                )
        kinds = _kinds(inputs, INPUT, self.axes)
        if kinds != self.expected:
            raise WorkloadError(
                f"{self._named(number)} gives inputs {_shown(kinds)}; example_inputs are {_shown(self.expected)} (without the "
                "batch). All samples must be alike: resize or crop them in the data set, or declare the axis in the workload's "
                "dynamic_axes."
            )
        kinds = _kinds(target, TARGET, _any_size(target) if self.axes else NO_AXES)
        self.target = self.target or kinds
        if kinds != self.target:
            raise WorkloadError(
                f"{self._named(number)} gives a target {_shown(kinds)}, the first sample {_shown(self.target)}. All "
                "targets of a role must be alike."
            )
        return target

    def _pair(self, number: int) -> tuple[PyTree, PyTree]:
        """A sample as a batch of one."""
        one = self.dataset[number]
        try:
            inputs, target = self.collate([one])
        except WorkloadError as error:
            if isinstance(error.__cause__, Unpaired):
                raise WorkloadError(f"{self._named(number)} {error.__cause__}.") from error.__cause__
            raise
        return inputs, target

    def try_loss(self, outputs: PyTree, numbers: list[int], targets: list[PyTree]) -> None:
        """Give the loss targets beside outputs of the model: those of other samples, where their shapes are the same."""
        if self.axes and any(x.dim() > 1 for x in tensors(targets)):
            return
        others = torch.arange(len(targets)) % length(outputs)
        try:
            with torch.no_grad():
                self.loss(rows(outputs, others), joined(targets))
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

    def _refuses(self, outputs: PyTree, target: PyTree) -> bool:
        try:
            with torch.no_grad():
                self.loss(outputs, target)
        except WorkloadError:
            return True
        return False

    def _named(self, number: int) -> str:
        return f"The data role '{self.role}': sample {number}"


def _kinds(batch: PyTree, whole: str, axes: DynamicAxes = NO_AXES) -> Kinds:
    """axes: whose sizes do not matter, by name."""
    return {
        name: (tuple(axes.get(name, {}).get(axis, size) for axis, size in enumerate(x.shape))[1:], x.dtype)
        for name, x in named(batch, whole).items()
    }


def _any_size(target: PyTree) -> DynamicAxes:
    """All axes of a target, besides the batch."""
    return {name: dict.fromkeys(range(1, x.dim()), "any") for name, x in named(target, TARGET).items()}


def _shown(kinds: Kinds) -> str:
    texts = {name: f"{shape} {str(dtype).removeprefix('torch.')}" for name, (shape, dtype) in kinds.items()}
    return ", ".join(text if name in (INPUT, TARGET) else f"{name} {text}" for name, text in texts.items())


def _shown_outputs(outputs: PyTree) -> str:
    shapes = {name: tuple(x.shape) for name, x in named(outputs, OUTPUT).items()}
    return (
        str(shapes[OUTPUT])
        if list(shapes) == [OUTPUT]
        else ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    )


def _value(target: PyTree) -> str:
    if not isinstance(target, Tensor):
        return _shown(_kinds(target, TARGET))
    return str(target.item()) if target.numel() == 1 else f"{tuple(target.shape[1:])} {target.flatten()[:4].tolist()} …"

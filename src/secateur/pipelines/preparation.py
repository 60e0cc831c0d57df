"""What a run needs before its first stage, and everything that can be wrong with a definition, a workload or a model."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from secateur.compression.checks import check_model
from secateur.compression.compensation.batch_norm import batch_norms, dense_statistics
from secateur.compression.costs import LayerCosts
from secateur.compression.groups import FoundGroups
from secateur.compression.kept_groups import kept_groups
from secateur.compression.storage import weights_digest
from secateur.definition import (
    PipelineDefinition,
)
from secateur.errors import DefinitionError, WorkloadError
from secateur.evaluators import DenseModel, Evaluator, Place
from secateur.evaluators.channel_steps import channel_multiple
from secateur.evaluators.devices import open_devices
from secateur.evaluators.devices.kept import Kept
from secateur.evaluators.devices.pool import Devices
from secateur.evaluators.formats import ONNX
from secateur.evaluators.on_device import FIGURES
from secateur.evaluators.onnx_export import check_size
from secateur.evaluators.runtimes import RUNTIMES
from secateur.pipelines.limits import (
    SCORES,
    check_batch,
    check_direction,
    check_gates,
    check_inner_layers,
    check_int8,
    check_recovery,
    check_sizes,
    check_threads,
)
from secateur.pipelines.names import check_names
from secateur.pipelines.state import STATE
from secateur.records import GroupSummary, Workload
from secateur.recovery.sparsity import NEEDS, PENALTIES, penalised
from secateur.recovery.trainers import Trainer, trainer_of
from secateur.search_spaces import SearchSpace, build_space
from secateur.workloads.inspection import inspect_workload
from secateur.workloads.loading import build_model, load_workload
from secateur.workloads.portions import portions
from secateur.workloads.pytrees import length, rows, tensors
from secateur.workloads.roles import check_calibration, collect

Step = Callable[..., None]
"""Told what is being done and, where that is known, what share of it is done: `step(text, share)`."""
LEAST_VALUES = 2
"""Per channel of a batch norm, below which it has no variance."""


@dataclass(frozen=True)
class Prepared:
    """Everything that the later stages work with, checked. Whoever prepares it closes it.

    looked_at: data role → (samples looked at, samples there are); empty in a worker. seconds: it took to prepare. trainer: of
    finalists, the user's own; a worker gets it with its first training.
    """

    definition: PipelineDefinition
    workload: Workload
    model: nn.Module
    found: FoundGroups
    space: SearchSpace
    evaluator: Evaluator
    looked_at: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    seconds: float = 0.0
    trainer: Trainer | None = None

    @property
    def costs(self) -> LayerCosts:
        """The multiply-accumulates of the model's layers."""
        return self.found.costs

    @property
    def source(self) -> nn.Module:
        """What candidates are cut from: the original, or what sparse training has made of it."""
        return self.evaluator.cutting.model

    @property
    def devices(self) -> Devices:
        """What networks are measured on."""
        return self.evaluator.measuring.devices

    def close(self) -> None:
        """Let the devices go."""
        self.devices.close()


def prepare(
    definition: PipelineDefinition,
    root: Path,
    *,
    dense_onnx: bytes | None = None,
    groups: Path | None = None,
    lasting: bool = False,
    step: Step = lambda *_: None,
) -> Prepared:
    """Load the workload, trace the model, build the space, export the dense model: all that can fail before long work.

    dense_onnx: the dense model as exported earlier, for workers. groups: the file of those that were proven earlier. lasting: keep
    measurements in the project's state, where there is one, and use those that are there. step: told what begins.
    """
    started = time.monotonic()
    own_metrics, trainer = check_names(definition, root), None
    check_int8(definition)
    if definition.recover is not None and dense_onnx is None:  # most workers train no finalist
        trainer = trainer_of(definition.recover, root)
    step("loading the workload")
    workload = load_workload(definition.workload, root)
    available = len(workload.data.search)  # type: ignore[arg-type] # map-style datasets have a length
    check_batch(definition.evaluator, [x[:1] for x in tensors(workload.example_inputs)], available)
    for name in SCORES:
        check_direction(definition.evaluator, name, workload.score_direction)
    check_sizes(definition.evaluator, workload)
    model = build_model(workload)
    looked_at = (
        _inspected(definition, workload, model) if dense_onnx is None else {}
    )  # the driver has done it for its workers
    step("finding and proving the groups that can be cut")
    found = kept_groups(groups, model, workload.example_inputs, step)
    check_gates(definition, found.blocks)
    # What happens to devices goes to the log: of a worker, or the terminal.
    step("opening the device")
    devices = open_devices(definition.evaluator, root, logging.getLogger("secateur").warning)
    keeps = lasting and (root / STATE).is_dir()
    place = Place(devices, kept=Kept(root / STATE / "measurements") if keeps else None)

    def multiple() -> int:
        if RUNTIMES[definition.evaluator.runtime].format != ONNX:
            raise DefinitionError(
                f"{definition.search_space.where('groups')}: 'multiple_of: device' is measured on ONNX files, which "
                f"{definition.evaluator.runtime} does not read. Give a number."
            )
        return channel_multiple(devices, definition.evaluator.batch, place.kept)

    space = build_space(definition.search_space, found, multiple)
    if definition.recover is not None:
        check_recovery(definition.recover, workload, space.methods)
        check_inner_layers(definition.recover, model, workload, space.by_channel)
    _check_sparse_training(definition, space, model)
    step("exporting the dense model")
    dense = DenseModel(model, workload, found.costs, dense_onnx)
    evaluator = Evaluator(definition.evaluator, dense, place, own_metrics)
    seconds = time.monotonic() - started
    return Prepared(definition, workload, model, found, space, evaluator, looked_at, seconds, trainer)


def _check_sparse_training(definition: PipelineDefinition, space: SearchSpace, model: nn.Module) -> None:
    """Raises DefinitionError where there is nothing that the penalty of sparse training could make small."""
    settings = definition.sparse_training
    if settings is None or penalised(settings, space.by_channel, model):
        return
    if not space.by_channel:
        raise DefinitionError(
            f"{settings.where()}: sparse training makes channels small that may leave, and no method of the search space removes "
            "channels. Add one, `l2` say, or leave 'sparse_training' out."
        )
    raise DefinitionError(
        f"{settings.where('penalty')}: '{settings.penalty}' applies to no group that may lose channels: it lacks "
        f"{NEEDS[settings.penalty]}. Take the other one of {', '.join(PENALTIES)}."
    )


def check_calibration_images(definition: PipelineDefinition, workload: Workload, model: nn.Module) -> None:
    """Raises DefinitionError where a batch norm cannot be recalibrated on so few samples: one value has no variance."""
    for declared in (definition.evaluator, definition.search.fidelities):
        if not declared.calibration_images or not batch_norms(model):
            continue
        images, _ = collect(workload.data.calibration, declared.calibration_images)
        smallest = min(part.stop - part.start for part in portions(model.eval(), images))
        (few,) = dense_statistics(model, rows(images, slice(smallest)))  # as many values as it sees at a time
        for name, count in few.count.items():
            if count < LEAST_VALUES:
                raise DefinitionError(
                    f"{declared.where('calibration_images')}: with {length(images)} calibration samples the batch norm '{name}' "
                    f"sees {count} value per channel, which has no variance. Use at least {LEAST_VALUES} samples, better 64 or "
                    "more (the data role 'calibration' must hold so many); 0 turns recalibration off."
                )


def _check_builds(workload: Workload, model: nn.Module) -> None:
    """Every process builds the model for itself: they must all get the same one."""
    first = weights_digest(model)  # before the second call, which may return the very same module
    if weights_digest(build_model(workload)) != first:
        raise WorkloadError(
            f"build_model of '{workload.name}' returned other weights at the second call; build_model must return the same weights "
            "at every call. Load trained weights in it; where it draws random ones, seed it there (torch.manual_seed)."
        )


def _inspected(definition: PipelineDefinition, workload: Workload, model: nn.Module) -> Mapping[str, tuple[int, int]]:
    """Model, data, loss and score tried together: what does not fit must show now and not after the search."""
    check_size(model)
    check_model(model, workload.example_inputs)
    _check_builds(workload, model)
    inspected = inspect_workload(workload, model)
    output = workload.output(inspected.outputs)
    if definition.recover and definition.recover.distill and output.dim() != 2:  # (n, classes)
        raise WorkloadError(
            f"{definition.recover.where('distill')}: distillation needs outputs (n, classes); the workload's output "
            f"is {tuple(output.shape)}. Set 'distill: null'."
        )
    check_calibration(workload.data)
    check_calibration_images(definition, workload, model)
    return inspected.looked_at


def check_device(prepared: Prepared) -> None:
    """Reach the device. Raises DefinitionError where it cannot give what the definition wants, DeviceLost where it is away."""
    definition, device = prepared.definition.evaluator, prepared.devices.hello
    check_threads(definition, device.machine.cores, "the device")
    wanted = {**definition.objectives, **definition.constraints}
    timed = [name for name in wanted if name in FIGURES]
    if device.machine.emulated and timed:
        raise DefinitionError(
            f"{definition.where('device')}: this device is emulated: its timings mean nothing, so {', '.join(timed)} cannot be an "
            "objective or a constraint there. Measure on a real one."
        )
    register = prepared.definition.register_as
    if device.machine.emulated and register is not None and register.gate is not None:
        raise DefinitionError(
            f"{register.where('gate')}: this device is emulated: its timings mean nothing, and the gate compares latency. Leave "
            "'gate' out, or measure on a real one."
        )
    for name in wanted:
        if reason := prepared.evaluator.unavailable(name):
            part = "objectives" if name in definition.objectives else "constraints"
            raise DefinitionError(f"{definition.where(part, name)}: '{name}' cannot be measured there: {reason}.")


def summaries(prepared: Prepared) -> tuple[GroupSummary, ...]:
    """The groups that may be cut, as reports show them."""
    return tuple(
        GroupSummary(
            g.name, g.layer_type, g.width, g.parameters, g.macs, choice.methods, choice.widths, choice.multiple
        )
        for g, choice in ((choice.group, choice) for choice in prepared.space.choices.values())
    )

"""What a run needs before its first stage, and everything that can be wrong with a definition, a workload or a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from secateur.compression.costs import LayerCosts
from secateur.compression.groups import find_groups
from secateur.definition import LOWER_GOALS, UPPER_GOALS, PipelineDefinition, one_of
from secateur.errors import DefinitionError, WorkloadError, first_line
from secateur.evaluators import METRICS, RUNTIMES, Evaluator, Metric
from secateur.evaluators.devices import DEVICES
from secateur.records import ROLES, GroupSummary, Workload
from secateur.search.samplers import SAMPLERS, refusal
from secateur.search_spaces import SearchSpace, build_space
from secateur.workloads.loading import build_model, load_attribute, load_workload
from secateur.workloads.roles import as_tuple


@dataclass(frozen=True)
class Prepared:
    """Everything that the later stages work with, checked."""

    definition: PipelineDefinition
    workload: Workload
    model: nn.Module
    costs: LayerCosts
    space: SearchSpace
    evaluator: Evaluator


def check_names(definition: PipelineDefinition, root: Path) -> dict[str, Metric]:
    """Every name in a definition that a registry must know. Returns the project's own metrics."""
    evaluator = definition.evaluator
    own = {}
    for name, spec in evaluator.metrics.items():
        function = load_attribute(spec, root, evaluator.where("metrics", name), "metric")
        direction = evaluator.objectives.get(name, "maximize")
        own[name] = Metric(function, direction, (function.__doc__ or "the project's own").splitlines()[0])
    known = {**METRICS, **own}
    for name in evaluator.objectives:
        one_of(name, known, evaluator.where("objectives", name), "metric")
    for name, constraint in evaluator.constraints.items():
        one_of(name, known, evaluator.where("constraints", name), "metric")
        direction = evaluator.objectives.get(name, known[name].direction)
        fitting = LOWER_GOALS if direction == "maximize" else UPPER_GOALS
        for goal in constraint.goals:
            if goal not in fitting:
                raise DefinitionError(
                    f"{evaluator.where('constraints', name, goal)}: '{goal}' does not fit '{name}', which is to be {direction}d. "
                    f"Allowed: {', '.join(fitting)}."
                )
    one_of(evaluator.runtime, RUNTIMES, evaluator.where("runtime"), "runtime")
    one_of(evaluator.device, DEVICES, evaluator.where("device"), "device")
    search = definition.search
    if reason := refusal(search.sampler, search.engine):
        raise DefinitionError(f"{search.where('sampler')}: {reason}")
    one_of(search.sampler, SAMPLERS, search.where("sampler"), "sampler")
    return own


def prepare(definition: PipelineDefinition, root: Path, dense_onnx: bytes | None = None) -> Prepared:
    """Load the workload, trace the model, build the space, export the dense model: all that can fail before long work.

    dense_onnx: the dense model as exported earlier, for workers.
    """
    own_metrics = check_names(definition, root)
    workload = load_workload(definition.workload, root)
    model = build_model(workload)
    found = find_groups(model, workload.example_inputs)
    space = build_space(definition.search_space, found)
    _check_training(definition, workload, model)
    evaluator = Evaluator(
        definition.evaluator, workload, model, found.costs, metrics=own_metrics, dense_onnx=dense_onnx
    )
    return Prepared(definition, workload, model, found.costs, space, evaluator)


def _check_training(definition: PipelineDefinition, workload: Workload, model: nn.Module) -> None:
    """Loss and score on two samples: shapes that do not fit show now and not after the search."""
    _check_samples(workload)
    inputs, targets = next(iter(torch.utils.data.DataLoader(workload.data.calibration, batch_size=2)))
    with torch.no_grad():
        outputs = model(*as_tuple(inputs))
        for name, function in (("loss", workload.loss), ("score", workload.score)):
            try:
                value = function(outputs, targets)
            except Exception as error:
                raise WorkloadError(
                    f"The workload's {name} fails on two calibration samples (outputs {tuple(outputs.shape)}, targets "
                    f"{tuple(targets.shape)}): {type(error).__name__}: {error}"
                ) from error
            allowed = [()] if name == "loss" else [(), (len(targets),)]
            if tuple(torch.as_tensor(value).shape) not in allowed:
                raise WorkloadError(
                    f"The workload's {name} gives {tuple(torch.as_tensor(value).shape)} for two calibration samples; it must "
                    + (
                        "be one number, the mean over the batch."
                        if name == "loss"
                        else "give one number a sample, or one for all."
                    )
                )
            if not torch.isfinite(torch.as_tensor(value)).all():
                raise WorkloadError(f"The workload's {name} on two calibration samples is {value}.")
    if definition.recover and definition.recover.distill and outputs.dim() != 2:  # (n, classes)
        raise WorkloadError(
            f"{definition.recover.where('distill')}: distillation needs outputs (n, classes); the model gives "
            f"{tuple(outputs.shape)}. Set 'distill: null'."
        )


def _check_samples(workload: Workload) -> None:
    """One sample of each role, against the example inputs: a dataset that does not fit must not show after the search."""
    expected = [(tuple(x.shape[1:]), x.dtype) for x in workload.example_inputs]
    for role in ROLES:
        dataset = getattr(workload.data, role)
        try:
            inputs, _ = next(iter(torch.utils.data.DataLoader(dataset, batch_size=1)))
            found = [(tuple(x.shape[1:]), x.dtype) for x in as_tuple(inputs)]
        except Exception as error:
            raise WorkloadError(
                f"The first sample of the data role '{role}' cannot be read as (input, target): {type(error).__name__}: "
                f"{first_line(error)}"
            ) from error
        if found != expected:
            raise WorkloadError(
                f"The data role '{role}' gives inputs {_shapes(found)}; example_inputs are {_shapes(expected)} (without the batch)."
            )


def _shapes(tensors: list[tuple[tuple[int, ...], torch.dtype]]) -> str:
    return ", ".join(f"{shape} {str(dtype).removeprefix('torch.')}" for shape, dtype in tensors)


def summaries(prepared: Prepared) -> tuple[GroupSummary, ...]:
    """The groups that may be cut, as reports show them."""
    return tuple(
        GroupSummary(g.name, g.layer_type, g.width, g.parameters, g.macs, choice.methods, choice.widths)
        for g, choice in ((choice.group, choice) for choice in prepared.space.choices.values())
    )

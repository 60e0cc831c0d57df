"""What a schema cannot judge: threads against cores, the batch against data and memory, sizes and directions of the workload."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from secateur.agent.runtimes import RUNTIMES, Unavailable
from secateur.compression.plan import apply
from secateur.compression.transforms import TRANSFORMS
from secateur.compression.transforms.channels import without
from secateur.definition import (
    LOWER_GOALS,
    UPPER_GOALS,
    DistillDefinition,
    EvaluatorDefinition,
    PipelineDefinition,
    RecoverDefinition,
)
from secateur.errors import DefinitionError, MeterFailed, nearest
from secateur.evaluators.formats import ONNX
from secateur.evaluators.on_device import SAMPLED
from secateur.evaluators.onnx_inputs import MOST_BYTES
from secateur.records import SCORE, Direction, Group, Workload, named
from secateur.recovery.hints import channel_axis
from secateur.recovery.layers import attending, layers_of, outputs_of

SCORES = (SCORE, SAMPLED)
"""Metrics whose direction is that of the workload's score."""
TESTED_RUNTIME = "onnxruntime"
"""What models with gates and in int8 are made by and tested on."""


@contextmanager
def meter_needed(evaluator: EvaluatorDefinition) -> Iterator[None]:
    """Around a measurement that cannot do without the meter. Raises DefinitionError where `energy_command` gives no joules."""
    try:
        yield
    except MeterFailed as error:
        raise DefinitionError(
            f"{evaluator.where('energy_command')}: {error}. It must print the joules spent so far, a growing number and nothing "
            "else; leave it out where there is no meter."
        ) from error


def check_threads(evaluator: EvaluatorDefinition, cores: int, whose: str) -> None:
    """Raises DefinitionError where a runtime is to have more threads than the device has cores."""
    if evaluator.threads > cores:
        raise DefinitionError(
            f"{evaluator.where('threads')}: {evaluator.threads} threads, but {whose} has {cores} cores: more threads only wait for "
            f"each other. At most {cores}."
        )


def check_batch(evaluator: EvaluatorDefinition, sample: Sequence[Tensor], available: int | None = None) -> None:
    """Raises DefinitionError where a batch is larger than the data, or its inputs than fit easily into memory.

    sample: one sample of each input, (1, …). available: samples of the search data, where there are any.
    """
    batch, where = evaluator.batch, evaluator.where("batch")
    if available is not None and batch > available:
        raise DefinitionError(
            f"{where}: {batch} samples per run, but the search data holds {available}. At most {available}."
        )
    each = sum(x.element_size() * math.prod(x.shape[1:]) for x in sample)
    if batch * each > MOST_BYTES:
        raise DefinitionError(
            f"{where}: {batch} samples per run take {batch * each / 2**20:,.0f} MiB, more than {MOST_BYTES / 2**20:.0f}. "
            f"At most {MOST_BYTES // each:,}."
        )


def check_direction(evaluator: EvaluatorDefinition, name: str, direction: Direction) -> None:
    """Raises DefinitionError where what is asked of a metric is not the way in which it is better."""
    wanted = evaluator.objectives.get(name, direction)
    if wanted != direction:
        says = ", as the workload's score_direction says" if name in SCORES else ""
        raise DefinitionError(
            f"{evaluator.where('objectives', name)}: '{name}' is to be {direction}d{says}; to '{wanted}' it would make the search "
            f"look for bad models. Write '{name}: {direction}', or leave it out."
        )
    fitting = LOWER_GOALS if direction == "maximize" else UPPER_GOALS
    constraint = evaluator.constraints.get(name)
    for goal in constraint.goals if constraint else ():
        if goal not in fitting:
            raise DefinitionError(
                f"{evaluator.where('constraints', name, goal)}: '{goal}' does not fit '{name}', which is to be {direction}d. "
                f"Allowed: {', '.join(fitting)}."
            )


def check_gates(definition: PipelineDefinition, blocks: Sequence[Group]) -> None:
    """Raises DefinitionError where no block can have a gate that is wanted, or where the runtime is not tested with gates."""
    recover = definition.recover
    if recover is None or recover.gates is None:
        return
    evaluator = definition.evaluator
    if evaluator.runtime != TESTED_RUNTIME:
        raise DefinitionError(
            f"{recover.where('gates')}: models with gates run in {TESTED_RUNTIME}, and {evaluator.where('runtime')} says "
            f"{evaluator.runtime}. Change one of the two."
        )
    if not blocks:
        raise DefinitionError(
            f"{recover.where('gates')}: this model has no residual block that can be left out, so nothing can have a gate. "
            "Leave 'gates' out."
        )


def check_int8(definition: PipelineDefinition) -> None:
    """Raises DefinitionError where finalists are wanted in int8 and the runtime takes no such files, or gates hide their layers."""
    if not definition.int8:
        return
    evaluator, where = definition.evaluator, definition.where("quantize")
    if evaluator.runtime != TESTED_RUNTIME:
        raise DefinitionError(
            f"{where}: int8 models run in {TESTED_RUNTIME} on the CPU, and {evaluator.where('runtime')} says {evaluator.runtime}. "
            f"Allowed there: [none]. Change one of the two."
        )
    provider = RUNTIMES[TESTED_RUNTIME].chosen(evaluator.runtime_options)["provider"]
    if provider != "cpu":
        raise DefinitionError(
            f"{where}: int8 models run on the CPU, and {evaluator.where('runtime_options', 'provider')} says {provider}. Allowed "
            "there: [none]. Change one of the two."
        )
    if definition.recover is not None and definition.recover.gates is not None:
        raise DefinitionError(
            f"{where}: blocks with a gate ({definition.recover.where('gates')}) lie in an `If` of the file, where ONNX Runtime "
            "quantizes nothing. Allowed with gates: [none]. Change one of the two."
        )


def check_inner_layers(
    settings: RecoverDefinition, model: nn.Module, workload: Workload, groups: Sequence[Group] = ()
) -> None:
    """Raises DefinitionError where inner layers that shall be learnt from are not there, or give what cannot be learnt from.

    groups: that may lose channels; each loses one here.
    """
    distill = settings.distill
    if distill is None or not (distill.attention or distill.hints):
        return
    names = [name for name, _ in model.named_modules() if name]
    for key, patterns in (("attention", distill.attention), ("hints", distill.hints)):
        for i, pattern in enumerate(patterns):
            if not layers_of(model, [pattern]):
                raise DefinitionError(
                    f"{distill.where(key, i)}: no layer is called '{pattern}'.{nearest(pattern, names)}"
                )
    heads = attending(model, workload.example_inputs) if distill.attention else set()
    for i, pattern in enumerate(distill.attention):
        for name, output in outputs_of(model, [pattern], workload.example_inputs):
            if name not in heads and (not isinstance(output, Tensor) or output.dim() not in (3, 4)):
                raise DefinitionError(
                    f"{distill.where('attention', i)}: '{name}' gives {_kind(output)}, which has no attention map: (n, channels, "
                    "height, width) or (n, tokens, channels) is needed, or a layer that computes attention. Name another layer."
                )
    if distill.hints:
        _check_hints(distill, model, workload, groups)


def _check_hints(distill: DistillDefinition, model: nn.Module, workload: Workload, groups: Sequence[Group]) -> None:
    cut = apply(model, without(groups, {group.name: group.removable[:1] for group in groups}), shared=True)
    for i, pattern in enumerate(distill.hints):
        pairs = zip(*(outputs_of(net, [pattern], workload.example_inputs) for net in (model, cut)), strict=True)
        for (name, taught), (_, own) in pairs:
            where = f"{distill.where('hints', i)}: '{name}' gives"
            if not isinstance(taught, Tensor) or not isinstance(own, Tensor) or not taught.is_floating_point():
                raise DefinitionError(
                    f"{where} {_kind(taught)}; a hint is one tensor of numbers (n, …). Name another layer."
                )
            try:
                channel_axis(own.shape, taught.shape)
            except ValueError as error:
                raise DefinitionError(
                    f"{where} {error} when each group has lost a channel: a projection makes up for one dimension, behind the "
                    "first one. Name another layer."
                ) from error


def _kind(output: object) -> str:
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    return f"{tuple(output.shape)}" if output.is_floating_point() else f"{tuple(output.shape)} of {output.dtype}"


def check_sizes(evaluator: EvaluatorDefinition, workload: Workload) -> None:
    """Raises DefinitionError where a workload has dynamic axes and something in the evaluator takes inputs of one size only."""
    if not workload.dynamic_axes:
        return
    if evaluator.predictor is not None:
        raise DefinitionError(
            f"{evaluator.where('predictor')}: a predictor times operators on inputs of one size, and the workload has "
            "dynamic_axes. Leave 'predictor' out."
        )
    if RUNTIMES[evaluator.runtime].format != ONNX:
        raise DefinitionError(
            f"{evaluator.where('runtime')}: files for {evaluator.runtime} take inputs of one size, and the workload has "
            "dynamic_axes. Leave one of the two out."
        )


def check_recovery(settings: RecoverDefinition, workload: Workload, methods: Iterable[str]) -> None:
    """Raises DefinitionError where finalists cannot be trained in the way that is asked for. methods: of the search space."""
    if settings.rewind and workload.build_early is None:
        raise DefinitionError(
            f"{settings.where('rewind')}: weights from early in the training are needed, and the workload has none. Give "
            "'build_early' in the Workload that your factory returns, or leave 'rewind' out."
        )
    probe = RUNTIMES["torch"].probe({"mode": "compile"})
    if settings.compile and isinstance(probe, Unavailable):
        raise DefinitionError(f"{settings.where('compile')}: {probe.reason}. Install one, or leave 'compile' out.")
    if settings.masks != "kept" and not any(TRANSFORMS[named(method)[0]].stage == "pattern" for method in methods):
        raise DefinitionError(
            f"{settings.where('masks')}: '{settings.masks}' chooses in training which weights are zero, and no method of the "
            "search space sets any to zero. Use one of 'weights/…', 'n_m/…' or 'blocks/…', or leave 'masks' out."
        )

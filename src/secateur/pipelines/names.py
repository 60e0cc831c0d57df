"""The names in a definition: each one must be known to its registry, and usable here with what the definition says beside it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from secateur.agent.runtimes import Unavailable, check_options
from secateur.compression.criteria import CRITERIA, Criterion
from secateur.compression.transforms import TRANSFORMS
from secateur.definition import (
    UPPER_GOALS,
    ConstraintDefinition,
    EvaluatorDefinition,
    LocalDevice,
    PipelineDefinition,
    one_of,
)
from secateur.errors import DefinitionError
from secateur.evaluators import METRICS, Metric
from secateur.evaluators.formats import FORMATS, ONNX
from secateur.evaluators.runtimes import RUNTIMES
from secateur.pipelines.limits import SCORES, check_direction, check_threads
from secateur.records import Direction, named
from secateur.search.samplers import SAMPLERS, refusal
from secateur.workloads.loading import load_attribute


def check_names(definition: PipelineDefinition, root: Path) -> dict[str, Metric]:
    """Every name in a definition that a registry must know. Returns the project's own metrics, and those of plug-ins that it names.

    Raises DefinitionError, and PluginError where an installed plug-in cannot be used.
    """
    evaluator = definition.evaluator
    own = {}
    for name, spec in evaluator.metrics.items():
        function = load_attribute(spec, root, evaluator.where("metrics", name), "metric")
        direction = evaluator.objectives.get(name) or _direction_of(evaluator.constraints.get(name))
        own[name] = Metric(function, direction, (function.__doc__ or "the project's own").splitlines()[0])
    named = {*evaluator.objectives, *evaluator.constraints} - own.keys()
    own |= {name: METRICS[name] for name in sorted(named) if METRICS.plugin(name)}
    known, names = {**METRICS.own, **own}, [*METRICS, *own]
    for block in ("objectives", "constraints"):
        for name in getattr(evaluator, block):
            one_of(name, names, evaluator.where(block, name), "metric")
            if name not in SCORES:
                check_direction(evaluator, name, known[name].direction)
    check_runtime(evaluator)
    _check_methods(definition)
    search = definition.search
    if reason := refusal(search.sampler, search.engine):
        raise DefinitionError(f"{search.where('sampler')}: {reason}")
    one_of(search.sampler, SAMPLERS, search.where("sampler"), "sampler")
    return own


def _check_methods(definition: PipelineDefinition) -> None:
    """Raises DefinitionError where a criterion needs an extra that is missing, or Gram matrices and none are to be gathered."""
    for i, rule in enumerate(definition.search_space.groups):
        for j, name in enumerate(rule.methods):
            (transform, criterion), where = named(name), definition.search_space.where("groups", i, "methods", j)
            if transform not in TRANSFORMS or criterion not in (known := CRITERIA[TRANSFORMS[transform].unit]):
                continue  # said where the space is built
            method: Criterion = known[criterion]
            if method.extra and importlib.util.find_spec(method.extra) is None:  # it is named after its package
                raise DefinitionError(
                    f"{where}: '{name}' needs the extra {method.extra}: pip install 'secateur[{method.extra}]'"
                )
            if method.needs_grams and not definition.evaluator.refit_images:
                raise DefinitionError(
                    f"{where}: '{name}' ranks by what layers read, and how they are refitted, and 'refit_images: 0' turns that "
                    "off. Leave one of the two out."
                )


def _direction_of(constraint: ConstraintDefinition | None) -> Direction:
    """Of a metric of the project's own that is no objective: what has an upper limit is a cost."""
    cost = constraint is not None and any(goal in UPPER_GOALS for goal in constraint.goals)
    return "minimize" if cost else "maximize"


def check_runtime(evaluator: EvaluatorDefinition) -> None:
    """Raises DefinitionError where a runtime's options are wrong, or where it cannot be used on this host and is to be."""
    runtime = RUNTIMES[one_of(evaluator.runtime, RUNTIMES, evaluator.where("runtime"), "runtime")]
    if problem := check_options(evaluator.runtime, evaluator.runtime_options):
        raise DefinitionError(f"{evaluator.where('runtime_options')}: {problem}")
    availability = runtime.probe(runtime.chosen(evaluator.runtime_options))
    if isinstance(evaluator.device, LocalDevice) and isinstance(availability, Unavailable):
        raise DefinitionError(
            f"{evaluator.where('runtime')}: {evaluator.runtime} cannot be used on this host: {availability.reason}."
        )
    if isinstance(evaluator.device, LocalDevice):
        check_threads(evaluator, os.cpu_count() or 1, "this host")
    if runtime.format == ONNX:
        return
    one_of(runtime.format, FORMATS, f"{evaluator.where('runtime')}: {evaluator.runtime}", "format")
    if missing := FORMATS[runtime.format].missing:
        raise DefinitionError(
            f"{evaluator.where('runtime')}: models for {evaluator.runtime} are converted here: {missing}."
        )
    if evaluator.predictor is not None:
        raise DefinitionError(
            f"{evaluator.where('predictor')}: a predictor times single operators as ONNX files, and {evaluator.runtime} reads "
            f"{runtime.format}. Leave 'predictor' out."
        )

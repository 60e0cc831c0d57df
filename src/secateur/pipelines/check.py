"""What a pipeline would do, and roughly how long it would take: everything but the doing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from secateur.compression.saliency import compute_saliencies
from secateur.definition import PipelineDefinition, RecoverDefinition
from secateur.errors import ModelError
from secateur.pipelines.preparation import Prepared, prepare, summaries
from secateur.records import Excluded, GroupSummary
from secateur.recovery.fine_tune import fine_tune

PROBED_STEPS = 3


@dataclass(frozen=True)
class Checked:
    """What `secateur check` shows."""

    groups: tuple[GroupSummary, ...]
    excluded: tuple[Excluded, ...]
    facts: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def check_pipeline(definition: PipelineDefinition, root: Path) -> Checked:
    """Do everything that a run does before its search, and time one candidate and a few training steps.

    Raises what `run_pipeline` raises for wrong definitions, workloads and models.
    """
    prepared = prepare(definition, root)
    space, evaluator = prepared.space, prepared.evaluator
    saliencies = compute_saliencies(prepared.model, space.groups, space.methods, prepared.workload)
    candidate = space.uniform(0.5, space.methods[0])
    evaluator.evaluate(candidate, space.groups, saliencies)  # the first one loads the data
    evaluation = evaluator.evaluate(candidate, space.groups, saliencies)
    if evaluation.failure is not None:
        raise ModelError(
            f"A candidate with half of its channels cannot be evaluated: {evaluation.failure}. Keep the groups that it concerns "
            "whole: list them under `exclude` in the search space."
        )
    declared = definition.evaluator
    measured = {
        name: f"{direction}, "
        + (f"on {evaluator.device}" if evaluation.measurements[name].provenance == "measured" else "computed")
        for name, direction in declared.objectives.items()
    }
    roles = {
        role: len(getattr(prepared.workload.data, role))
        for role in ("train", "calibration", "search", "selection", "test")
    }
    facts = {
        "workload": f"{prepared.workload.name}; samples: "
        + ", ".join(f"{role} {count:,}" for role, count in roles.items()),
        "search": f"{definition.search.sampler}, {definition.search.trials} candidates, {len(space.parameters())} dimensions, "
        f"{space.size:.2g} different choices",
        **{f"objective {name}": text for name, text in measured.items()},
        "constraints": "; ".join(
            f"{name} may drop {c.max_drop:g} after recovery, {definition.drop_during_search(name):g} during the search"
            for name, c in declared.constraints.items()
        )
        or "none",
        "files of candidates": "rewritten from one export"
        if evaluator.exports == 0
        else "exported one by one (slow): the graph holds tensors that are not the module's own",
        "estimated time": _estimate(prepared, evaluation.seconds),
        "registered as": definition.register_as.name
        if definition.register_as
        else "nothing: no 'register' in the pipeline",
    }
    return Checked(summaries(prepared), space.excluded, facts)


def _estimate(prepared: Prepared, seconds: float) -> str:
    """From one candidate and a few training steps of the dense network, so an upper bound for the latter."""
    definition = prepared.definition
    search = seconds * definition.search.trials
    text = f"search {_minutes(search)} ({seconds:.2f} s a candidate)"
    if definition.recover is not None:
        recover = _training_seconds(prepared, definition.recover)
        text += f", recovery at most {_minutes(recover)} on the CPU"
    return text


def _training_seconds(prepared: Prepared, settings: RecoverDefinition) -> float:
    data = prepared.workload.data
    size = len(data.train)  # type: ignore[arg-type] # map-style
    batch = min(settings.batch, size)
    steps = min(PROBED_STEPS, max(1, size // batch))
    few = replace(data, train=Subset(data.train, range(steps * batch)))
    workload = replace(prepared.workload, data=few)
    started = time.perf_counter()
    fine_tune(prepared.model, prepared.model, workload, settings.model_copy(update={"epochs": 1}))
    elapsed = time.perf_counter() - started
    return elapsed / steps * (size // batch) * settings.epochs * settings.finalists


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # two minutes

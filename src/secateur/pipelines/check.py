"""A dry run: all checks, the search space, and an estimate of the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from secateur.compression.costs import within_reach
from secateur.compression.resolution import resolve
from secateur.definition import PipelineDefinition, RecoverDefinition
from secateur.errors import ModelError
from secateur.evaluators.paired import least_excluded
from secateur.formatting import amount
from secateur.pipelines.budgets import check_budgets
from secateur.pipelines.gathering import give_grams, refitted
from secateur.pipelines.listener import Listener
from secateur.pipelines.preparation import Prepared, check_device, prepare, summaries
from secateur.pipelines.quantizing import give_int8
from secateur.pipelines.ranking import ranked, scored
from secateur.pipelines.reading import prior_front
from secateur.pipelines.rungs import share_of_rungs
from secateur.pipelines.sparse_training import penalty_of, settings_of
from secateur.pipelines.stages import adapted, dense_on, evaluation_of, goals_on
from secateur.records import SCORE, SHARE, Excluded, Goal, GroupSummary, Job
from secateur.recovery.fine_tune import Training, steps_of, train_steps
from secateur.recovery.sparsity import penalised, reach
from secateur.report.zeros import no_kernel

T = TypeVar("T")
PROBED_STEPS = 3
DRY_IMAGES = 32
"""Calibration samples that Gram matrices are gathered from: enough to time a candidate."""
DIFFERING = 0.05
"""Share of samples, by way of example, on which a tuned finalist and the dense model differ."""


@dataclass(frozen=True)
class Checked:
    """What `secateur check` shows."""

    groups: tuple[GroupSummary, ...]
    excluded: tuple[Excluded, ...]
    facts: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def check_pipeline(definition: PipelineDefinition, root: Path, listener: Listener | None = None) -> Checked:
    """Do everything that a run does before its search, and time one candidate and a few training steps.

    Raises what `run_pipeline` raises for wrong definitions, workloads and models.
    """
    listener = listener or Listener()
    prior = prior_front(root, definition)
    listener.stage("check")
    with closing(prepare(definition, root, step=listener.step)) as prepared, TemporaryDirectory() as folder:
        adapted(prepared, prior)
        check_device(prepared)
        return _checked(prepared, Path(folder), listener.step)


def _checked(prepared: Prepared, folder: Path, step: Callable[[str], None]) -> Checked:
    """folder: for what is thrown away."""
    definition = prepared.definition
    evaluator = prepared.evaluator
    step("gathering what layers read")
    _, gathering = _timed(lambda: give_grams(prepared, folder / "grams.safetensors", most=DRY_IMAGES))
    step("computing saliency")
    saliencies, ranking = _timed(lambda: ranked(prepared))
    space = scored(prepared.space, saliencies)
    prepared = replace(prepared, space=space)
    step("measuring the dense model")
    dense, measuring = _timed(lambda: dense_on(prepared, "search"))
    step("evaluating one candidate")
    candidate = space.uniform(0.5, space.methods[0])
    job = Job(candidate, resolve(candidate, space.groups, saliencies))
    evaluator.cutting.observe(definition.evaluator.calibration_images)  # once for all: no candidate's time
    evaluation = evaluation_of(prepared, job)
    before = prepared.seconds + gathering * _gathered(prepared) + ranking + measuring
    if evaluation.failure is not None:
        raise ModelError(
            f"A candidate with half of its channels cannot be evaluated: {evaluation.failure}. Keep the groups that it concerns "
            "whole: list them under `exclude` in the search space."
        )
    declared = definition.evaluator
    goals = goals_on(prepared, dense)
    check_budgets(prepared, saliencies, goals, dense)
    figures = {name: evaluation.measurements[name] for name in declared.objectives}
    measured = {
        name: f"{direction}, {figures[name].provenance}"
        + (f" on {figures[name].device}" if figures[name].device else "")
        for name, direction in declared.objectives.items()
    }
    roles = {
        role: len(getattr(prepared.workload.data, role))
        for role in ("train", "calibration", "search", "selection", "test")
    }
    parameters, macs = within_reach(prepared.model, space.groups, prepared.costs)
    int8 = _int8(prepared, folder, step)
    step("timing a few training steps")
    facts = {
        "workload": f"{prepared.workload.name}; samples: "
        + ", ".join(f"{role} {count:,}" for role, count in roles.items()),
        "data looked through": _looked_through(prepared.looked_at),
        "search": f"{definition.search.sampler} (engine {definition.search.engine}), {definition.search.trials} candidates, "
        f"workers {definition.search.workers}, {len(space.parameters())} dimensions, "
        f"{space.size:.2g} different choices",
        "within reach": f"{parameters:.0%} of the parameters and {macs:.0%} of the MACs are in layers that may be cut",
        **{f"objective {name}": text for name, text in measured.items()},
        "constraints": "; ".join(
            goal.text
            + (f" (during the search {goal.limit_in_search:.4g})" if goal.limit_in_search != goal.limit else "")
            for goal in goals
        )
        or "none",
        **_gate(prepared, goals),
        **_zeros(prepared),
        **_sparse(prepared),
        **int8,
        "layers to refit": str(refitted(prepared)),
        "files of candidates": "rewritten from one export"
        if evaluator.files.exports == 0
        else f"exported one by one (slow): {evaluator.files.why_exported}. Remedy: compute such tensors once, in build_model, or "
        "keep the groups there whole, under `exclude` in the search space",
        "estimated time": _estimate(prepared, before, evaluation.seconds),
        "registered as": definition.register_as.name
        if definition.register_as
        else "nothing: no 'register' in the pipeline",
    }
    return Checked(summaries(prepared), space.excluded, facts)


def _gate(prepared: Prepared, goals: Sequence[Goal]) -> dict[str, str]:
    """What losses the selection data can exclude, beside the loss that is allowed."""
    samples = len(prepared.workload.data.selection)  # type: ignore[arg-type] # map-style
    drops = [goal.drop for goal in goals if goal.metric == SCORE and goal.drop is not None]
    if not drops or prepared.workload.score_unit != SHARE:
        return {}
    none, some = (amount(least_excluded(samples, share), SHARE) for share in (0.0, DIFFERING))
    text = (
        f"a loss above {amount(min(drops), SHARE)} must be excluded with 95 % confidence; of an equally good model that differs on "
        f"{DIFFERING:.0%} of the {samples:,} selection samples a loss of {some} cannot be excluded ({none}: on none)"
    )
    few = least_excluded(samples, 0.0) > min(drops)
    return {"gate": text + (": no model will pass that is not better. Give more selection samples." if few else "")}


def _zeros(prepared: Prepared) -> dict[str, str]:
    """What the zeros that the search may leave gain on the runtime."""
    evaluator = prepared.definition.evaluator
    said = no_kernel(prepared.space.transforms, evaluator.runtime, evaluator.runtime_options)
    return {"zeros": said} if said else {}


def _sparse(prepared: Prepared) -> dict[str, str]:
    """What is trained before the search, if anything."""
    settings, groups = prepared.definition.sparse_training, prepared.space.by_channel
    if settings is None:
        return {}
    steps = steps_of(prepared.workload, settings_of(prepared.definition, settings))
    shrinks = reach(settings.strength, settings.learning_rate, steps)
    reached = len(penalised(settings, groups, prepared.model))
    return {
        "sparse training": f"{settings.epochs} epochs before the search, with the penalty {settings.penalty} on {reached} of "
        f"{len(groups)} groups that may lose channels; with strength {settings.strength:g} a channel's norm or scale shrinks by at "
        f"most {shrinks:.2g}. Candidates are cut from what it gives and compared with the original; this check has cut the original"
    }


def _int8(prepared: Prepared, folder: Path, step: Callable[[str], None]) -> Mapping[str, str]:
    """What is made in int8, after trying it with the original. Raises ModelError."""
    if not prepared.definition.int8:
        return {}
    step("quantizing the original")
    _, seconds = _timed(lambda: give_int8(prepared, folder))
    return {"int8": f"each finalist and the original once more, quantized in some {seconds:.0f} s each, then measured"}


def _looked_through(looked_at: Mapping[str, tuple[int, int]]) -> str:
    parts = [f"{seen:,} of {count:,} of {role}" for role, (seen, count) in looked_at.items() if seen < count]
    return f"drawn: {', '.join(parts)}; all of the others" if parts else "all samples"


def _gathered(prepared: Prepared) -> float:
    """How many times as many samples a run gathers Gram matrices from."""
    samples = len(prepared.workload.data.calibration)  # type: ignore[arg-type] # map-style
    wanted = min(prepared.definition.evaluator.refit_images, samples)
    return wanted / max(1, min(wanted, DRY_IMAGES))


def _estimate(prepared: Prepared, before: float, seconds: float) -> str:
    """From what was done, one candidate and a few training steps of the dense network, so an upper bound for the latter.

    before: seconds that a run takes before its search. seconds: of one candidate.
    """
    definition = prepared.definition
    search = seconds * definition.search.trials / definition.search.workers
    parts = [f"preparation {_minutes(before)}", f"search {_minutes(search)} ({seconds:.2f} s a candidate)"]
    sparse = recover = 0.0
    if (wanted := definition.sparse_training) is not None:
        training = Training(penalty=penalty_of(prepared, wanted))
        sparse = _training_seconds(prepared, settings_of(definition, wanted), training)
        parts.insert(0, f"sparse training {_minutes(sparse)} on the CPU")
    if definition.recover is not None:
        rungs = share_of_rungs(definition.search.fidelities) if definition.recover.minutes is None else 0.0
        every = definition.recover.finalists * definition.recover.steps * (1 + rungs)
        recover = every * _training_seconds(prepared, definition.recover)
        if prepared.trainer is None:
            parts.append(f"recovery at most {_minutes(recover)} on the CPU")
        else:
            parts.append(f"recovery {_minutes(recover)} if {prepared.trainer.name} were the built-in trainer")
    text = f"{_minutes(sparse + before + search + recover)}: {', '.join(parts)}"
    if definition.search.engine == "nni":
        text += "; besides some seconds for each trial of NNI's, which starts a process and prepares the workload"
    return text


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What the work returns, and the seconds that it took."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _training_seconds(prepared: Prepared, settings: RecoverDefinition, training: Training | None = None) -> float:
    """Of one whole training, on the CPU."""
    if settings.minutes is not None:
        return 60 * settings.minutes
    steps = min(PROBED_STEPS, steps_of(prepared.workload, settings))
    short = train_steps(prepared.model, prepared.model, prepared.workload, settings, steps, training or Training())
    return short.seconds / steps * steps_of(prepared.workload, settings)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # two minutes

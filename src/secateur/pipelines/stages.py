"""One function per arrow: prepared → trials → finalists → recovered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from safetensors.torch import load_file
from torch import Tensor, nn

from secateur.compression.costs import nonzero_after, parameters_after
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies
from secateur.compression.tensor_files import write_tensors
from secateur.definition import RecoverDefinition
from secateur.errors import DefinitionError
from secateur.pipelines.limits import meter_needed
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.ranking import ranked
from secateur.pipelines.state import RunFolder
from secateur.records import (
    Candidate,
    Evaluation,
    Goal,
    Job,
    Measurement,
    Plan,
    Trial,
)
from secateur.recovery.fine_tune import Training, train_steps
from secateur.recovery.masks import kept
from secateur.search.front import front
from secateur.search.goals import goals_of
from secateur.search.ledger import Problem, by_hypervolume, feasible, own

SHOWN = 6
"""Groups that a message names."""


def saliencies_of(prepared: Prepared, run: RunFolder) -> Saliencies:
    """Saliency scores, computed once per run and kept: a restarted run must cut the same channels. Mapped from their file."""
    file = run.path / "saliency.safetensors"
    if not file.is_file():
        computed = ranked(prepared)
        write_tensors(file, {f"{group}/{method}": own for group, by in computed.items() for method, own in by.items()})
        del computed
    kept: dict[str, dict[str, Tensor]] = {}
    for key, scores in load_file(file).items():
        group, _, method = key.partition("/")
        kept.setdefault(group, {})[method] = scores
    return kept


def dense_on(prepared: Prepared, role: str) -> Mapping[str, Measurement]:
    """The dense model's figures on one data role. Its latency is a ratio to itself: the interval is the noise floor.

    Raises EvaluationFailed where it cannot be measured, DefinitionError where the definition's meter is at fault.
    """
    evaluator = prepared.evaluator
    with meter_needed(prepared.definition.evaluator):
        return evaluator.measure(evaluator.files.dense, role, evaluator.everything)


def evaluation_of(
    prepared: Prepared,
    job: Job,
    on_part: Callable[[Mapping[str, Measurement]], None] | None = None,
    device: str = "cpu",
) -> Evaluation:
    """What a worker does with a job: cut, recalibrate, train a few steps where the job says so, measure.

    on_part: told the figures on the first share of the data, where it is scored in parts. device: `cpu` or `cuda`, for training.
    """
    if job.fidelity.probe:
        return prepared.evaluator.probe(job)

    def few_steps(module: nn.Module) -> nn.Module:
        settings = prepared.definition.recover or RecoverDefinition()
        training = Training(device, masks=kept(job.plan.masked))
        return train_steps(module, prepared.model, prepared.workload, settings, job.fidelity.steps, training).module

    return prepared.evaluator.evaluate(
        job,
        first_images=prepared.definition.search.fidelities.first_images,
        refine=few_steps if job.fidelity.steps else None,
        on_part=on_part,
    )


def goals_on(prepared: Prepared, dense: Mapping[str, Measurement]) -> tuple[Goal, ...]:
    """The definition's goals as limits. dense: the original's figures on the data role in question."""
    definition = prepared.definition
    return goals_of(definition.evaluator.constraints, dense, recovers=definition.recover is not None)


def problem_of(
    prepared: Prepared,
    saliencies: Saliencies,
    dense: Mapping[str, Measurement],
    prior: Sequence[Candidate] = (),
) -> Problem:
    """The search problem of a definition."""
    definition, space = prepared.definition, prepared.space

    def exact(plan: Plan) -> dict[str, float]:
        return {
            "macs": prepared.costs.after(plan),
            "parameters": parameters_after(prepared.model, plan),
            "nonzero": nonzero_after(prepared.model, plan),
        }

    return Problem(
        space,
        definition.evaluator.objectives,
        resolve=lambda candidate: resolve(candidate, space.groups, saliencies),
        exact=exact,
        dense=dense,
        goals=goals_on(prepared, dense),
        saliencies=saliencies,
        prior=adapted(prepared, prior),
        seed=definition.search.seed,
        score_direction=prepared.workload.score_direction,
    )


def adapted(prepared: Prepared, prior: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """An earlier front in this space. Raises DefinitionError where the two have no group in common."""
    fitting = [c for c in map(prepared.space.adapted, prior) if c is not None]
    if prior and not fitting:
        cut = {name for c in prior for name in c.edits}
        search = prepared.definition.search
        raise DefinitionError(
            f"{search.where('warm_start')}: nothing that run '{search.warm_start}' has cut is in this search space: it cut "
            f"{', '.join(sorted(cut)[:SHOWN])}; here there are {', '.join([*prepared.space.choices][:SHOWN])}. "
            "Leave 'warm_start' out."
        )
    return tuple({candidate.key: candidate for candidate in fitting}.values())


def choose_finalists(prepared: Prepared, trials: Sequence[Trial], dense: Mapping[str, Measurement]) -> list[Trial]:
    """Front members that add the most hypervolume, one after the other; the dense network is not one of them."""
    definition = prepared.definition
    objectives = definition.evaluator.objectives
    sound = [t for t in feasible(own(trials), goals_on(prepared, dense)) if t.arm != "dense"]
    on_front = front([t.evaluation for t in sound], objectives)
    members = [t for t in sound if any(t.evaluation is e for e in on_front)]
    count = definition.recover.finalists if definition.recover else len(members)
    return by_hypervolume(members, objectives, dense, goals_on(prepared, dense), count)

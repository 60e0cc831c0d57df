"""From what the stages have found to the record that report, registry and `secateur show` read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from secateur.evaluators.self_comparison import missing, widened
from secateur.pipelines.gathering import refitted
from secateur.pipelines.preparation import Prepared, summaries
from secateur.pipelines.stages import goals_on
from secateur.pipelines.state import RunFolder, Stopwatch
from secateur.records import (
    ROLES,
    Comparison,
    Evaluation,
    Measurement,
    Recovered,
    Replay,
    Rung,
    RunRecord,
    Trial,
    Verdict,
)
from secateur.search.audit import arm_results, audit, prediction_audit
from secateur.search.front import front
from secateur.search.ledger import Ledger, feasible, own
from secateur.search.sensitivity import known_sensitivities


@dataclass(frozen=True)
class Searched:
    """What the search has led to. ended: why it did. chosen: the trials that go on, in order."""

    ledger: Ledger
    ended: str
    chosen: Sequence[Trial]
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class Judged:
    """What the gate has decided. best: who gets the alias. dense: the original's figures per data role."""

    finalists: Sequence[Recovered]
    verdicts: Mapping[str, Verdict]
    best: str | None
    dense: Mapping[str, Mapping[str, Measurement]]
    self_comparison: Measurement | None


@dataclass(frozen=True)
class Results:
    """What the stages have found out, on the way into the record."""

    searched: Searched
    judged: Judged
    comparison: Comparison | None
    small_dense: Recovered | None = None
    replay: Replay | None = None


def record_of(prepared: Prepared, run: RunFolder, results: Results, watch: Stopwatch) -> RunRecord:
    """Everything a run found out. watch: seconds per stage."""
    definition, space = prepared.definition, prepared.space
    searched, judged = results.searched, results.judged
    problem, dense = searched.ledger.problem, judged.dense
    by = missing(judged.self_comparison)
    trials = [replace(t, evaluation=_widened(t.evaluation, by)) for t in searched.ledger.trials]
    objectives = definition.evaluator.objectives
    complete = own(trials)
    kept = feasible(complete, problem.goals)
    feasible_numbers = {t.number for t in kept}
    best = front([t.evaluation for t in kept if t.arm != "dense"], objectives)
    return RunRecord(
        run_id=run.run_id,
        name=definition.name,
        workload=prepared.workload.name,
        score_name=prepared.workload.score_name,
        score_unit=prepared.workload.score_unit,
        score_direction=prepared.workload.score_direction,
        started=run.started,
        definition=definition.as_written(),
        environment=run.environment,
        device=prepared.evaluator.device,
        objectives=objectives,
        goals=goals_on(prepared, dense["selection"]),
        groups=summaries(prepared),
        excluded=space.excluded,
        dense=dense,
        samples={role: len(getattr(prepared.workload.data, role)) for role in ROLES},
        trials=tuple(trials),
        sensitivities=known_sensitivities(searched.ledger.study),
        finalists=tuple(judged.finalists),
        verdicts=judged.verdicts,
        knee=judged.best,
        seconds=dict(watch.seconds),
        audit=audit(judged.finalists, judged.verdicts, prepared.workload.score_direction),
        arms=arm_results(trials, objectives, dense["search"], problem.goals),
        ended=searched.ended,
        small_dense=results.small_dense,
        comparison=results.comparison,
        replay=results.replay,
        rungs=searched.rungs,
        self_comparison=judged.self_comparison,
        device_step=space.device_step,
        refitted=refitted(prepared),
        uncut=prepared.evaluator.uncut_score(),
        waited=_waited(trials, watch, prepared.evaluator.waiting.spent),
        prediction=prediction_audit(trials) if definition.evaluator.predictor is not None else None,
        searched_front=tuple(t.number for t in kept if any(t.evaluation is e for e in best)),
        infeasible=tuple(t.number for t in complete if t.number not in feasible_numbers),
        exports=sum(t.evaluation.exported for t in trials if t.same_as is None),
    )


def _waited(trials: Sequence[Trial], watch: Stopwatch, spent: float) -> float:
    """Seconds of a whole run. spent: by this process, which may have gone on with a run that others have begun."""
    kept = sum(t.evaluation.waited for t in trials if t.same_as is None) + watch.spent("recover.waiting")
    return max(spent, kept)


def _widened(evaluation: Evaluation, by: float) -> Evaluation:
    return replace(evaluation, measurements=widened(evaluation.measurements, by))

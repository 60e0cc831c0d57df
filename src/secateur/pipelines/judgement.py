"""From tuned finalists to verdicts: the gate on selection data, the one look at test data, and who gets the alias."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from secateur.errors import DataUnreadable, EvaluationFailed, WorkloadError
from secateur.evaluators import Measured
from secateur.evaluators.paired import change
from secateur.evaluators.sample_scores import Scores, load_scores, save_scores
from secateur.judging.gate import Bar, Contender, judged, veto
from secateur.pipelines.exporting import network_of
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.stages import goals_on
from secateur.pipelines.state import RunFolder
from secateur.records import SCORE, Evaluation, Measurement, Plan, Recovered, Verdict
from secateur.registry import DENSE
from secateur.search.front import knee

OWN_FAULTS = (EvaluationFailed, WorkloadError)
"""What one network's score may raise without being the run's failure."""


def scores_file(folder: Path, role: str) -> Path:
    """Where a network's scores on one data role are kept, beside its other files."""
    return folder / f"scores-{role}.npz"


def judge(
    prepared: Prepared, finalists: Sequence[Recovered], dense: Mapping[str, Measurement], run: RunFolder
) -> tuple[list[Recovered], dict[str, Verdict]]:
    """The gate, on selection data, as `secateur.judging.gate` has it.

    Returns the finalists, those that cannot be compared with the dense model as failed ones, and the verdicts on the others.
    """
    original = Contender(
        Evaluation(prepared.space.dense(), Plan().key, dense), _dense_scores(prepared, run, "selection")
    )
    contenders: dict[str, Contender] = {}
    unscored: dict[str, str] = {}
    for finalist in (f for f in finalists if f.failure is None):
        try:
            scores = _selection_scores(prepared, finalist, run)
        except DataUnreadable:
            raise
        except OWN_FAULTS as error:
            unscored[finalist.name] = str(error)
        else:
            evaluation = Evaluation(finalist.candidate, finalist.name, finalist.measurements)
            contenders[finalist.name] = Contender(evaluation, scores)
    verdicts, failures = judged(contenders, original, _bar(prepared, dense))
    failures |= unscored
    return [replace(f, failure=failures.get(f.name, f.failure)) for f in finalists], verdicts


def score_on_test(
    prepared: Prepared,
    passed: Sequence[Recovered],
    verdicts: Mapping[str, Verdict],
    dense: Mapping[str, Measurement],
    run: RunFolder,
) -> dict[str, Verdict]:
    """The only touch of the test role: verdicts on what passed the gate, with test data. It can refuse, never favour.

    dense: the original's figures on selection data, from which the goals come.
    """
    goals, unit = goals_on(prepared, dense), prepared.workload.score_unit
    original = _dense_scores(prepared, run, "test")
    tested: dict[str, Verdict] = {}
    for finalist in passed:
        verdict = verdicts[finalist.name]
        try:
            measured = _measured_again(prepared, finalist, run, "test")
            changed = change(measured.scores, original)
            refused = veto(goals, measured.scores, original, unit)
        except DataUnreadable:
            raise
        except OWN_FAULTS as error:
            tested[finalist.name] = replace(verdict, veto=f"it cannot be scored on test data: {error}")
        else:
            save_scores(measured.scores, scores_file(run.path / finalist.folder, "test"))
            score = measured.measurements["accuracy"]
            tested[finalist.name] = replace(verdict, test=score, test_change=changed, veto=refused)
    return tested


def elect(prepared: Prepared, eligible: Sequence[Recovered], dense: Mapping[str, Measurement]) -> str | None:
    """Who gets the alias: of those that passed the gate and that test data does not refuse, the knee of the front.

    The order among them is that of selection data alone, by the rule of `secateur.search.front.knee`.
    """
    if not eligible:
        return None
    objectives, goals = prepared.definition.evaluator.objectives, goals_on(prepared, dense)
    allowed = {
        g.metric: abs(dense[g.metric].value - g.limit) for g in goals if g.metric == SCORE or g.sense == "at_least"
    }
    evaluations = [Evaluation(f.candidate, f.name, f.measurements) for f in eligible]
    return eligible[knee(evaluations, dense, objectives, allowed)].name


def _bar(prepared: Prepared, dense: Mapping[str, Measurement]) -> Bar:
    return Bar(goals_on(prepared, dense), prepared.definition.evaluator.objectives, prepared.workload.score_unit)


def _dense_scores(prepared: Prepared, run: RunFolder, role: str) -> Scores:
    return _kept(scores_file(run.folder(DENSE), role), lambda: prepared.evaluator.dense_scores(role))


def _selection_scores(prepared: Prepared, finalist: Recovered, run: RunFolder) -> Scores:
    """Kept when it was measured."""
    file = scores_file(run.path / finalist.folder, "selection")
    return _kept(file, lambda: _measured_again(prepared, finalist, run, "selection").scores)


def _kept(file: Path, score: Callable[[], Scores]) -> Scores:
    """Scores on disk; taken again where an earlier version has kept none, or others."""
    kept = load_scores(file) if file.is_file() else None
    if kept is None or not kept.current:
        kept = score()
        save_scores(kept, file)
    return kept


def _measured_again(prepared: Prepared, finalist: Recovered, run: RunFolder, role: str) -> Measured:
    """The score of a finalist as it lies on disk. Raises EvaluationFailed."""
    return prepared.evaluator.score(network_of(prepared, finalist, run), role, ["accuracy"])

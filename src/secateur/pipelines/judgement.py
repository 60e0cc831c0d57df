"""From tuned finalists to verdicts: the gate on selection data, the one look at test data, and who gets the alias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from secateur.compression.storage import load_compressed
from secateur.errors import DataUnreadable, EvaluationFailed, WorkloadError
from secateur.evaluators import Measured, Network
from secateur.evaluators.paired import change
from secateur.evaluators.sample_scores import Scores, load_scores, save_scores
from secateur.judging.gate import Contender, front_of, missed, veto
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.stages import goals_on
from secateur.pipelines.state import RunFolder
from secateur.records import Evaluation, Measurement, Recovered, Removals
from secateur.registry import DENSE
from secateur.search.front import knee


def scores_file(folder: Path, role: str) -> Path:
    """Where a network's scores on one data role are kept, beside its other files."""
    return folder / f"scores-{role}.npz"


def judge(
    prepared: Prepared, finalists: Sequence[Recovered], dense: Mapping[str, Measurement], run: RunFolder
) -> list[Recovered]:
    """The gate, on selection data: the goals as `secateur.judging.gate` has them, and the front with the dense model on it."""
    goals, unit = goals_on(prepared, dense), prepared.workload.score_unit
    nothing = Removals({}, {}, {}).key
    original = Contender(Evaluation(prepared.space.dense(), nothing, dense), _dense_scores(prepared, run, "selection"))
    contenders = {
        f.name: Contender(Evaluation(f.candidate, f.name, f.measurements), _selection_scores(prepared, f, run))
        for f in finalists
        if f.failure is None
    }
    members = front_of([original, *contenders.values()], prepared.definition.evaluator.objectives)
    judged = []
    for finalist in finalists:
        if finalist.failure is None:
            contender = contenders[finalist.name]
            reasons = missed(goals, contender, original, unit)
            finalist = replace(
                finalist,
                on_front=any(contender is member for member in members),
                feasible=not reasons,
                missed=reasons,
                change=change(contender.scores, original.scores),
            )
        judged.append(finalist)
    return judged


def score_on_test(
    prepared: Prepared, finalists: Sequence[Recovered], dense: Mapping[str, Measurement], run: RunFolder
) -> tuple[list[Recovered], Measurement]:
    """The only touch of the test role: what passed the gate, and the dense model beside it. It can refuse, never favour.

    dense: the original's figures on selection data, from which the goals come.
    """
    evaluator = prepared.evaluator
    original = _dense_scores(prepared, run, "test")
    scored = []
    for finalist in finalists:
        if finalist.on_front and finalist.feasible:
            try:
                measured = _measured_again(prepared, finalist, run, "test")
            except DataUnreadable:
                raise
            except (EvaluationFailed, WorkloadError) as error:
                finalist = replace(finalist, veto=f"it cannot be scored on test data: {error}")
            else:
                save_scores(measured.scores, scores_file(run.path / finalist.folder, "test"))
                finalist = replace(
                    finalist,
                    test=measured.measurements["accuracy"],
                    test_change=change(measured.scores, original),
                    veto=veto(goals_on(prepared, dense), measured.scores, original, prepared.workload.score_unit),
                )
        scored.append(finalist)
    return scored, evaluator.measure(evaluator.files.dense, "test", ["accuracy"])["accuracy"]


def elect(prepared: Prepared, finalists: Sequence[Recovered], dense: Mapping[str, Measurement]) -> str | None:
    """Who gets the alias: of those that passed the gate and that test data does not refuse, the knee of the front.

    The order among them is that of selection data alone, by the rule of `secateur.search.front.knee`.
    """
    objectives, goals = prepared.definition.evaluator.objectives, goals_on(prepared, dense)
    eligible = [f for f in finalists if f.on_front and f.feasible and f.veto is None]
    if not eligible:
        return None
    allowed = {g.metric: dense[g.metric].value - g.limit for g in goals if g.sense == "at_least"}
    evaluations = [Evaluation(f.candidate, f.name, f.measurements) for f in eligible]
    return eligible[knee(evaluations, dense, objectives, allowed)].name


def _dense_scores(prepared: Prepared, run: RunFolder, role: str) -> Scores:
    file = scores_file(run.folder(DENSE), role)
    if not file.is_file():
        save_scores(prepared.evaluator.dense_scores(role), file)
    return load_scores(file)


def _selection_scores(prepared: Prepared, finalist: Recovered, run: RunFolder) -> Scores:
    """Kept when it was measured; taken again where a run was begun before scores were kept."""
    file = scores_file(run.path / finalist.folder, "selection")
    if not file.is_file():
        save_scores(_measured_again(prepared, finalist, run, "selection").scores, file)
    return load_scores(file)


def _measured_again(prepared: Prepared, finalist: Recovered, run: RunFolder, role: str) -> Measured:
    """The score of a finalist as it lies on disk. Raises EvaluationFailed."""
    return prepared.evaluator.score(_network(prepared, finalist, run.path / finalist.folder), role, ["accuracy"])


def _network(prepared: Prepared, finalist: Recovered, folder: Path) -> Network:
    module = load_compressed(folder / "compressed", prepared.model)
    return Network(module, (folder / "model.onnx").read_bytes(), int(finalist.measurements["macs"].value))

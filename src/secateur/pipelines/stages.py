"""One function per arrow: prepared → trials → finalists → recovered → judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from safetensors.torch import load_file, save
from torch import Tensor

from secateur.compression.saliency import Saliencies, compute_saliencies
from secateur.compression.selection import resolve
from secateur.compression.storage import load_compressed, save_compressed
from secateur.definition import PipelineDefinition
from secateur.errors import EvaluationFailed, ModelError
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.state import RunFolder
from secateur.records import (
    CompressedModel,
    Evaluation,
    Measurement,
    Recovered,
    Removals,
    Trial,
)
from secateur.recovery.fine_tune import fine_tune
from secateur.search.front import as_costs, choose, front, knee
from secateur.search.loop import Problem, Progress, search
from secateur.search.study import Study

_RECOVERED: TypeAdapter[Recovered] = TypeAdapter(Recovered)


def saliencies_of(prepared: Prepared, run: RunFolder) -> Saliencies:
    """Saliency scores, computed once per run and kept: a restarted run must cut the same channels."""
    file = run.path / "saliency.safetensors"
    methods = prepared.space.methods
    if file.is_file():
        loaded: dict[str, dict[str, Tensor]] = {}
        for key, scores in load_file(file).items():
            group, _, method = key.rpartition("/")
            loaded.setdefault(group, {})[method] = scores
        return loaded
    computed = compute_saliencies(prepared.model, prepared.space.groups, methods, prepared.workload)
    flat = {f"{group}/{method}": scores for group, by in computed.items() for method, scores in by.items()}
    write(file, save(flat))
    return computed


def dense_on(prepared: Prepared, role: str) -> dict[str, Measurement]:
    """The dense model's figures on one data role. Its latency is a ratio to itself: the interval is the noise floor."""
    evaluator = prepared.evaluator
    return evaluator.measure(prepared.model, evaluator.dense_onnx, prepared.costs.total, role, [*evaluator.registry])


def run_search(
    prepared: Prepared,
    saliencies: Saliencies,
    study: Study,
    dense: Mapping[str, Measurement],
    on_trial: Callable[[Progress, Trial], None],
) -> Progress:
    """Search until the budget is spent."""
    definition, space, evaluator = prepared.definition, prepared.space, prepared.evaluator

    def violations(evaluation: Evaluation) -> dict[str, float]:
        return {
            name: _drop(name, dense, evaluation.measurements, definition) - definition.drop_during_search(name)
            for name in definition.evaluator.constraints
        }

    problem = Problem(
        space,
        definition.evaluator.objectives,
        key=lambda candidate: resolve(candidate, space.groups, saliencies).key,
        evaluate=lambda candidate: evaluator.evaluate(candidate, space.groups, saliencies),
        violations=violations,
    )
    return search(problem, study, definition.search.trials, on_trial)


def _drop(
    name: str, dense: Mapping[str, Measurement], measured: Mapping[str, Measurement], definition: PipelineDefinition
) -> float:
    """How much worse than the dense model, in the metric's unit; negative is better."""
    change = dense[name].value - measured[name].value
    return change if definition.evaluator.objectives[name] == "maximize" else -change


def feasible_in_search(prepared: Prepared, trials: Sequence[Trial], dense: Mapping[str, Measurement]) -> list[Trial]:
    """Trials of their own that keep the constraints as loosened for the time before recovery."""
    definition = prepared.definition
    return [
        t
        for t in trials
        if t.same_as is None
        and t.evaluation.failure is None
        and all(
            _drop(name, dense, t.evaluation.measurements, definition) <= definition.drop_during_search(name)
            for name in definition.evaluator.constraints
        )
    ]


def reference_point(
    definition: PipelineDefinition, dense: Mapping[str, Measurement], trials: Sequence[Trial]
) -> list[float]:
    """The worst corner that counts, as costs: the dense model's own costs, and the largest drop that the search allows.

    A maximised objective without a constraint, and a cost that the dense model does not have, are bounded by the worst seen.
    """
    corner = []
    for name, direction in definition.evaluator.objectives.items():
        value, seen = dense[name].value, [t.evaluation.measurements[name].value for t in trials]
        if direction == "minimize":
            corner.append(value if value > 0 else max(seen, default=value))
        elif name in definition.evaluator.constraints:
            corner.append(-(value - definition.drop_during_search(name)))
        else:
            corner.append(-min(seen, default=value))
    return corner


def choose_finalists(prepared: Prepared, trials: Sequence[Trial], dense: Mapping[str, Measurement]) -> list[Trial]:
    """Front members that add the most hypervolume, one after the other; the dense network is not one of them."""
    definition = prepared.definition
    objectives = definition.evaluator.objectives
    sound = feasible_in_search(prepared, trials, dense)
    on_front = front([t.evaluation for t in sound], objectives)
    members = [t for t in sound if t.arm != "dense" and any(t.evaluation is e for e in on_front)]
    count = definition.recover.finalists if definition.recover else len(members)
    points = as_costs([t.evaluation for t in members], objectives)
    reference = np.array(reference_point(definition, dense, sound))
    return [members[i] for i in choose(points, reference, count)]


def recover_finalist(
    prepared: Prepared,
    saliencies: Saliencies,
    trial: Trial,
    number: int,
    run: RunFolder,
    device: str,
    on_epoch: Callable[[int, float], None],
) -> Recovered:
    """Fine-tune one finalist, export it, measure it on selection data. A finished one is read back; a begun one goes on."""
    name = f"f{number}-{trial.evaluation.removals_key[:6]}"
    folder = run.folder("finalists", name)
    result = folder / "result.json"
    if result.is_file():
        return _RECOVERED.validate_json(result.read_bytes())
    candidate = trial.evaluation.candidate
    removals = resolve(candidate, prepared.space.groups, saliencies)
    compressed = prepared.evaluator.compress(candidate, removals)
    settings = prepared.definition.recover
    module, epochs, seconds, stopped = compressed.module, 0, 0.0, None
    if settings is not None:
        tuned = fine_tune(
            compressed.module,
            prepared.model,
            prepared.workload,
            settings,
            device=device,
            seed=prepared.definition.search.seed,
            checkpoint=folder / "checkpoint.safetensors",
            on_epoch=on_epoch,
        )
        module, epochs, seconds, stopped = tuned.module, tuned.epochs, tuned.seconds, tuned.stopped
    recovered = _measured(prepared, CompressedModel(candidate, removals, module), trial, name, folder, run)
    recovered = replace(recovered, epochs=epochs, seconds=seconds, stopped=stopped)
    write(result, _RECOVERED.dump_json(recovered, indent=1))
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return recovered


def _measured(
    prepared: Prepared, compressed: CompressedModel, trial: Trial, name: str, folder: Path, run: RunFolder
) -> Recovered:
    measurements: Mapping[str, Measurement] = {}
    failure = None
    try:
        macs = prepared.costs.after(compressed.removals)
        measured = prepared.evaluator.export_and_measure(compressed.module, macs, "selection")
        measurements = measured.measurements
        write(folder / "model.onnx", measured.onnx)
    except (EvaluationFailed, ModelError) as error:
        failure = str(error)
    save_compressed(compressed, prepared.model, prepared.definition.workload.as_written, folder / "compressed")
    return Recovered(
        name=name,
        trial=trial.number,
        candidate=compressed.candidate,
        searched=trial.evaluation.measurements,
        measurements=measurements,
        folder=str(folder.relative_to(run.path)),
        epochs=0,
        seconds=0.0,
        failure=failure,
    )


def judge(
    prepared: Prepared, finalists: Sequence[Recovered], dense: Mapping[str, Measurement]
) -> tuple[list[Recovered], str | None]:
    """The gate, on selection data: constraints, and the front recomputed with the dense model on it. Also the knee's name.

    The rule for the knee is that of `secateur.search.front.knee`, over the members that pass.
    """
    definition = prepared.definition
    objectives = definition.evaluator.objectives
    nobody = Removals({}, {}, {}).key
    dense_evaluation = Evaluation(prepared.space.dense(), nobody, dense)
    evaluations = {f.name: Evaluation(f.candidate, f.name, f.measurements, f.failure) for f in finalists}
    on_front = front([dense_evaluation, *evaluations.values()], objectives)
    judged = []
    for finalist in finalists:
        feasible = finalist.failure is None and all(
            _drop(name, dense, finalist.measurements, definition) <= constraint.max_drop
            for name, constraint in definition.evaluator.constraints.items()
        )
        member = any(evaluations[finalist.name] is e for e in on_front)
        judged.append(replace(finalist, on_front=member, feasible=feasible))
    passed = [f for f in judged if f.on_front and f.feasible]
    if not passed:
        return judged, None
    max_drop = {name: constraint.max_drop for name, constraint in definition.evaluator.constraints.items()}
    return judged, passed[knee([evaluations[f.name] for f in passed], dense, objectives, max_drop)].name


def score_on_test(
    prepared: Prepared, finalists: Sequence[Recovered], run: RunFolder
) -> tuple[list[Recovered], Measurement]:
    """The only touch of the test role: what passed the gate, and the dense model beside it."""
    scored = []
    for finalist in finalists:
        if finalist.on_front and finalist.feasible:
            module = load_compressed(run.path / finalist.folder / "compressed", prepared.model)
            onnx = (run.path / finalist.folder / "model.onnx").read_bytes()
            measured = prepared.evaluator.measure(module, onnx, 0, "test", ["accuracy"])
            finalist = replace(finalist, test=measured["accuracy"])
        scored.append(finalist)
    evaluator = prepared.evaluator
    dense = evaluator.measure(prepared.model, evaluator.dense_onnx, prepared.costs.total, "test", ["accuracy"])
    return scored, dense["accuracy"]

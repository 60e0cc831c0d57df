"""The latency predictor of a run: fitted on its device before the search, kept with the run, read by its workers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies
from secateur.errors import EvaluationFailed, StateError
from secateur.evaluators import Network
from secateur.evaluators.operator_table import measured_alone, table_of
from secateur.evaluators.operators import Operator, operators_of
from secateur.evaluators.prediction import Predictor, calibration_candidates, fit
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.state import RunFolder
from secateur.records import Candidate

COVERED = 100
"""Random networks whose operators the table has to know; they are not measured."""


def load_predictor(prepared: Prepared, run: RunFolder) -> bool:
    """Give the evaluator the run's predictor. Whether there is nothing left to do: there is one, or none is wanted."""
    if prepared.definition.evaluator.predictor is None:
        return True
    if not run.predictor.is_file():
        return False
    prepared.evaluator.measuring.predictor = Predictor.from_json(run.predictor.read_bytes())
    return True


def calibrate(prepared: Prepared, saliencies: Saliencies, run: RunFolder) -> None:
    """Fit the predictor that the definition asks for, once per run. Measured networks are kept one by one.

    Raises StateError where too few networks of the space can be measured, DeviceLost where the device is gone.
    """
    settings = prepared.definition.evaluator.predictor
    if settings is None or load_predictor(prepared, run):
        return
    evaluator, batch = prepared.evaluator, prepared.definition.evaluator.batch
    measured, operators = [], operators_of(evaluator.files.dense.onnx, batch)
    try:
        for candidate in calibration_candidates(prepared.space, settings.models, prepared.definition.search.seed):
            network = _network(prepared, saliencies, candidate)
            measured.append((network.onnx, evaluator.measuring.latency(network).ratio))
            operators += operators_of(network.onnx, batch)
        operators += _likely(prepared, saliencies)
        table = table_of(operators, measured_alone(prepared.devices, batch))
        predictor = fit(evaluator.files.dense.onnx, measured, table, batch)
    except EvaluationFailed as error:
        raise StateError(f"The latency predictor cannot be fitted: {error}. Leave 'predictor' out.") from error
    write(run.predictor, predictor.to_json())
    evaluator.measuring.predictor = predictor


def _likely(prepared: Prepared, saliencies: Saliencies) -> Iterator[Operator]:
    """Operators of networks that the search may come upon; of those alone whose file is rewritten and need not be exported."""
    rng = np.random.default_rng(prepared.definition.search.seed)
    for _ in range(COVERED):
        candidate = prepared.space.random(rng)
        module = apply(prepared.model, resolve(candidate, prepared.space.groups, saliencies))
        try:
            file = prepared.evaluator.files.template.render(module)
        except EvaluationFailed:
            continue  # exporting takes seconds, and there are many
        yield from operators_of(file, prepared.definition.evaluator.batch)


def _network(prepared: Prepared, saliencies: Saliencies, candidate: Candidate) -> Network:
    """A candidate cut and written, not recalibrated: its latency does not depend on its weights."""
    plan = resolve(candidate, prepared.space.groups, saliencies)
    module = apply(prepared.model, plan)
    return prepared.evaluator.files.rewritten(module, prepared.costs.after(plan))

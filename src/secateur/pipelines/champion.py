"""The best finalist beside the version that serves, on the same data and on the same device, in this run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from secateur.definition import GateDefinition
from secateur.errors import DeviceLost, EvaluationFailed, ModelError, WorkloadError
from secateur.evaluators import Network
from secateur.judging.champion import RATIO, Margins, cost_check, score_check, size_ratio, slice_check
from secateur.pipelines.exporting import network_of
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.recovering import ROLE
from secateur.pipelines.state import RunFolder
from secateur.records import Comparison, GateCheck, Measurement, Recovered
from secateur.registry import Target
from secateur.registry.serving import Serving, serving


def compared(prepared: Prepared, run: RunFolder, best: Recovered) -> Comparison | None:
    """What the gate says of the best finalist, None where the definition has no gate.

    Raises RegistryUnreachable where the registry cannot say what serves, DeviceLost where the device is gone; the run can go on.
    """
    register = prepared.definition.register_as
    if register is None or register.gate is None:
        return None
    gate = register.gate
    champion: Serving | None = None
    with TemporaryDirectory() as folder:
        try:
            suffix = prepared.evaluator.runtime.format
            target = Target.of(prepared.definition.as_written()["register"])
            champion = serving(run.state, target, gate.against, Path(folder), suffix)
            if champion is None:
                return Comparison(best.name, gate.against, None)
            checks = _checks(prepared, gate, network_of(prepared, best, run), champion)
            return Comparison(best.name, gate.against, champion.number, checks)
        except DeviceLost:
            raise
        except (EvaluationFailed, ModelError, WorkloadError) as error:
            return Comparison(best.name, gate.against, champion.number if champion else "?", failure=str(error))


def _checks(prepared: Prepared, gate: GateDefinition, network: Network, champion: Serving) -> tuple[GateCheck, ...]:
    """Raises EvaluationFailed where the two cannot be compared, WorkloadError where the workload's functions fail."""
    evaluator, workload = prepared.evaluator, prepared.workload
    margins = Margins(gate.margin, gate.slice_margin, gate.slack, workload.score_unit)
    pairs = evaluator.compared((network.onnx, champion.onnx), ROLE)
    checks = [score_check(workload.score_name, pairs.pop(""), margins)]
    for name, pair in sorted(pairs.items()):
        with suppress(EvaluationFailed):  # too few samples to say anything
            checks.append(slice_check(name, pair, margins))
    report = evaluator.measuring.latency(network, champion.file)
    checks.append(
        cost_check(
            "latency",
            Measurement(
                report.ratio,
                RATIO,
                "measured",
                report.rounds,
                report.interval,
                evaluator.device,
                {"p50_ms": report.candidate_ms.p50, "version_p50_ms": report.reference_ms.p50},
            ),
            margins,
        )
    )
    checks.append(cost_check("size", size_ratio(len(network.file), len(champion.file)), margins))
    return tuple(checks)
